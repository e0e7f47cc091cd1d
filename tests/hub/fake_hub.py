"""A server that answers as the Hub does, to what `huggingface_hub` asks when it uploads and loads a model."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """What the server holds, and what was asked of it.

    A repository whose name begins with ``lfs`` takes safetensors by LFS, any other all files inline. ``fail``
    are repositories whose next commit is answered with an error.
    """

    def __init__(self):
        self.url = ""
        self.files = {}  # repository -> path -> bytes
        self.private = {}
        self.commits = {}
        self.objects = {}  # of LFS, by SHA-256
        self.sent = []  # sizes of the objects that came by LFS
        self.asked = []
        self.fail = set()

    def commit(self, repo, lines):
        files = self.files[repo]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        state = json.dumps({path: hashlib.sha1(one).hexdigest() for path, one in sorted(files.items())})
        self.commits[repo] = hashlib.sha1(state.encode()).hexdigest()
        return self.commits[repo]


def handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, content=b"", status=200, **headers):
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def missing(self, code):
            self.answer({"error": code}, 404, X_Error_Code=code)

        def body(self):
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                repo, name = found.groups()
                content = hub.files.get(repo, {}).get(name)
                if content is None:
                    return self.missing("EntryNotFound" if repo in hub.files else "RepoNotFound")
                tag = hashlib.sha256(content).hexdigest()
                return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=hub.commits[repo])
            if found := re.match(r"/api/models/([^/]+/[^/]+)(/tree/|/revision/|$)", path):
                repo, kind = found.groups()
                if repo not in hub.files:
                    return self.missing("RepoNotFound")
                files = hub.files[repo]
                if kind == "/tree/":
                    listed = [
                        {"type": "file", "path": one, "size": len(files[one]), "oid": one} for one in files
                    ]
                    return self.answer(listed)
                siblings = [{"rfilename": one} for one in files]
                info = {
                    "id": repo,
                    "sha": hub.commits[repo],
                    "private": hub.private[repo],
                    "siblings": siblings,
                }
                return self.answer(info)
            return self.missing("NotFound")

        do_HEAD = do_GET

        def do_POST(self):
            path, content = unquote(urlsplit(self.path).path), self.body()
            hub.asked.append(f"{self.command} {path}")
            if self.headers.get("Authorization") != "Bearer hf_of_the_test" and "/lfs/" not in path:
                return self.answer({"error": "no token"}, 401)
            if path == "/api/repos/create":
                asked = json.loads(content)
                repo = (
                    f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                )
                status = 409 if repo in hub.files else 200
                if status == 200:
                    hub.files[repo], hub.private[repo] = (
                        {".gitattributes": b""},
                        asked.get("visibility") == "private",
                    )
                    hub.commit(repo, [])
                return self.answer({"url": f"{hub.url}/{repo}", "name": repo}, status)
            if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
                by_lfs = found[1].split("/")[1].startswith("lfs")
                files = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if by_lfs and one["path"].endswith("safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for one in json.loads(content)["files"]
                ]
                return self.answer({"files": files})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = []
                for one in json.loads(content)["objects"]:
                    here = {"href": f"{hub.url}/lfs/{one['oid']}"}
                    new = {} if one["oid"] in hub.objects else {"actions": {"upload": here, "verify": here}}
                    objects.append({**one, **new})
                return self.answer({"transfer": "basic", "objects": objects})
            if path.startswith("/lfs/"):  # verify
                return self.answer({})
            if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
                if found[1] in hub.fail:
                    hub.fail.discard(found[1])
                    return self.answer({"error": "the disk is full"}, 507)
                oid = hub.commit(found[1], map(json.loads, content.splitlines()))
                url = f"{hub.url}/{found[1]}/commit/{oid}"
                return self.answer({"success": True, "commitOid": oid, "commitUrl": url})
            return self.answer({"errors": [], "warnings": []} if path == "/api/validate-yaml" else {})

        def do_PUT(self):
            content = self.body()
            oid = hashlib.sha256(content).hexdigest()
            assert self.path == f"/lfs/{oid}"
            hub.objects[oid] = content
            hub.sent.append(len(content))
            return self.answer()

    return Handler


@contextmanager
def running_hub():
    """A `Hub` that listens at its ``url`` while the body runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
