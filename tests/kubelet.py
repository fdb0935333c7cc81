"""A kubelet's interface as far as it lists pods: HTTPS with a certificate that an authority of its own has signed, a bearer
token, `GET /pods` with a `v1.PodList`.

    python3 kubelet.py --dir DIR --token TOKEN --pods FILE [--name NAME] [--impostor] [--type TYPE]

Writes `ca.pem` and, when it listens, `port` into DIR, and one line for each request into `requests`; reads FILE for each answer.
Its certificate is for NAME, `node-7` where none is given; with `--impostor` it is not signed by the authority in `ca.pem`.
Answers come in chunks, as long lists do. With `--type` FILE is of that media type: an engine's page behind TLS and a token.
"""

import argparse
import datetime
import http.server
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

def certificate(name, key, issuer, issuer_key, dns_name=None):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=dns_name is None, path_length=None), critical=True)
    )
    if dns_name is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


def authority():
    key = ec.generate_private_key(ec.SECP256R1())
    name = named("a kubelet's own authority")
    return name, key, certificate(name, key, name, key)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--pods", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="node-7")
    parser.add_argument("--impostor", action="store_true")
    parser.add_argument("--type", default="application/json")
    given = parser.parse_args()

    name, ca_key, ca = authority()
    shown = authority()[2] if given.impostor else ca
    (given.dir / "ca.pem").write_bytes(pem(shown))
    key = ec.generate_private_key(ec.SECP256R1())
    serving = given.dir / "serving.pem"
    serving.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + pem(certificate(named(given.name), key, name, ca_key, given.name))
    )

    class Kubelet(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            is_known = self.headers.get("Authorization") == f"Bearer {given.token}"
            with (given.dir / "requests").open("a") as requests:
                requests.write(f"{self.path} {is_known}\n")
            if not is_known:
                return self.answer(401, b"Unauthorized")
            if self.path != "/pods":
                return self.answer(404, b"404 page not found\n")
            return self.answer(200, given.pods.read_bytes())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", given.type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 100):
                part = body[start : start + 100]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubelet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(serving)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    part = given.dir / "port.part"
    part.write_text(str(server.server_address[1]))
    part.rename(given.dir / "port")
    server.serve_forever()


main()
