"""The steps that make the tables, each a module that Alembic runs; `policy.store.migrate` runs Alembic.

A step that has been released is never changed: what came after it is another step.
"""
