"""The lab: real Linux kernels with kTLS, for a machine whose own has none. docs/lab.md is its manual.

`cli` reads the command line; `uml` and `qemu` each know one kernel (what it needs, how it is started); `machine` starts
either, passes its output on and sees that nothing stays; `guest` is the first process inside; `fetch` and `packages`
get what is missing. Standard library only: the lab runs before the project's environment is complete.
"""
