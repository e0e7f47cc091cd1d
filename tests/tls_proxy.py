"""A TLS-terminating proxy in front of a server on loopback, which asks who is there."""

import base64
import http.client
import json
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def make_certificate(folder):
    """A key and a certificate of 127.0.0.1 that is its own authority."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", "/CN=st-l0 test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def tls_proxy(backend, certificate, key, allow):
    """Give its port; ``allow`` says of a request (method, path, headers, body) whether it may pass."""
    port = urlsplit(backend).port

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _pass(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if allow(self.command, self.path, self.headers, body):
                onward = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                onward.request(
                    self.command,
                    self.path,
                    body,
                    {"Content-Type": self.headers.get("Content-Type", "application/json")},
                )
                answer = onward.getresponse()
                status, text = answer.status, answer.read()
                onward.close()
            else:
                status, text = 401, json.dumps({"status": 401, "error": "Unauthorized"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
