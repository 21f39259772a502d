import pytest
from sqlalchemy import text

from policy.store import NoSuchRevision
from policy.store.connect import make_engine, read_url, writing

DOCUMENT = 'version = 1\n[[rule]]\nname = "a"\nverdict = "deny"\n'


def test_a_hash_that_begins_like_another_is_not_enough(store, url):
    first = store.commit(DOCUMENT, author="ann", message="m", parent=None)
    twin = first.hash[:6] + "0" * 58
    engine = make_engine(read_url(url))
    with writing(engine) as connection:
        copied = "author, time, message, base, content, policy"
        copy = f"INSERT INTO policy_revision SELECT 2, :twin, 1, {copied} FROM policy_revision"
        connection.execute(text(copy), {"twin": twin})
    engine.dispose()
    with pytest.raises(NoSuchRevision, match=f"{first.hash[:6]} may be several revisions: ") as caught:
        store.revision(first.hash[:6])
    assert f"1 ({first.hash[:12]})" in caught.value.message
    assert f"2 ({twin[:12]})" in caught.value.message
    assert store.revision(first.hash[:12]) == first


def test_a_document_is_that_of_its_revision_whatever_came_later(store):
    texts = [DOCUMENT + f"# {number}\n" for number in range(5)]
    head = None
    for one in texts:
        head = store.commit(one, author="ann", message="m", parent=head)
    assert [store.document(number + 1) for number in range(5)] == texts
