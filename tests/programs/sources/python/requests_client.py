"""One session: a download, an upload, and more requests on the kept connection: requests_client.py URL FILE."""

import hashlib
import sys
from pathlib import Path

import requests

url, file = sys.argv[1], Path(sys.argv[2])
with requests.Session() as session:
    with file.open("rb") as body:
        answer = session.post(f"{url}/sum", data=body, timeout=60)
    answer.raise_for_status()
    print("sent", answer.text)
    got = hashlib.sha256()
    with session.get(f"{url}/stream", stream=True, timeout=60) as answer:
        answer.raise_for_status()
        for part in answer.iter_content(65536):
            got.update(part)
    print("got", got.hexdigest())
    for number in range(5):
        text = session.get(f"{url}/hello/{number}", timeout=60).text
        print("said", text)
