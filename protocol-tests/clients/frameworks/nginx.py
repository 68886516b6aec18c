"""nginx serves pages from the cache (memcached_pass) and asks the application when there is none.

    nginx.py SERVER

What the application would answer is a fixed text of nginx's own.
"""

import gzip
import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from servers import Servers, wait_for
from free_ports import free_ports

CONFIG = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream cache {{ server 127.0.0.1:{cache}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{listen};
        location / {{
            set $memcached_key "page:$uri$is_args$args";
            memcached_gzip_flag 2;
            memcached_pass cache;
            gunzip on;
            default_type text/html;
            error_page 404 502 504 = @application;
        }}
        location @application {{ return 200 "made"; }}
    }}
}}
"""


def main(program):
    passed = 0

    def check(path, expected):
        nonlocal passed
        with urllib.request.urlopen(f"http://127.0.0.1:{listen}{path}", timeout=10) as reply:
            body = reply.read()
        assert body == expected, (path, body[:100])
        passed += 1

    def store(key, flags, value):
        with socket.create_connection(("127.0.0.1", servers.ports[0]), timeout=10) as client:
            client.sendall(b"set page:%s %d 60 %d\r\n%s\r\n" % (key, flags, len(value), value))
            assert client.recv(64) == b"STORED\r\n", key

    large = b"0123456789" * 90_000
    (listen,) = free_ports(1)
    with Servers(program, 1) as servers, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        config = os.path.join(folder, "nginx.conf")
        with open(config, "w") as file:
            user = "user root;" if os.getuid() == 0 else ""
            file.write(CONFIG.format(folder=folder, cache=servers.ports[0], listen=listen, user=user))
        nginx = subprocess.Popen(["nginx", "-p", folder, "-c", config, "-e", f"{folder}/error.log"])
        try:
            wait_for(listen, nginx)
            check("/", b"made")
            store(b"/", 0, b"<p>front</p>")
            store(b"/empty", 0, b"")
            store(b"/large", 0, large)
            store(b"/a%20b?c=d", 0, b"escaped")
            store(b"/packed", 2, gzip.compress(b"packed"))
            # Over and over: connections are kept, and must be in step after each kind of reply.
            for _ in range(20):
                check("/", b"<p>front</p>")
                check("/none", b"made")
                check("/empty", b"")
                check("/large", large)
                check("/a%20b?c=d", b"escaped")
                check("/packed", b"packed")
            servers.end(0)
            check("/", b"made")
        finally:
            nginx.terminate()
            nginx.wait()
    print(f"nginx: {passed} pages passed, the last one without a server")


main(sys.argv[1])
