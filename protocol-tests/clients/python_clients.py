"""Drives pymemcache, python-memcached and pylibmc against a server.

    python_clients.py HOST PORT

Every function named test_* is one test. A client that is not installed counts as a failure.
"""

import sys
import traceback

HOST, PORT = sys.argv[1], int(sys.argv[2])
ADDRESS = f"{HOST}:{PORT}"
LARGE = b"x" * 1_000_000
TOO_LARGE = b"x" * 2_000_000


# ---- pymemcache ---------------------------------------------------------------------------------


def pymemcache_client(**options):
    from pymemcache.client.base import Client

    client = Client((HOST, PORT), timeout=10, connect_timeout=10, **options)
    client.flush_all(noreply=False)
    return client


def test_pymemcache_set_and_get():
    client = pymemcache_client()
    assert client.set("k", b"value", noreply=False) is True
    assert client.get("k") == b"value"
    assert client.get("none") is None
    assert client.get("none", default=b"d") == b"d"
    assert client.set("empty", b"", noreply=False) is True
    assert client.get("empty") == b""


def test_pymemcache_storage_commands():
    client = pymemcache_client()
    assert client.add("k", b"a", noreply=False) is True
    assert client.add("k", b"b", noreply=False) is False
    assert client.replace("k", b"c", noreply=False) is True
    assert client.replace("none", b"c", noreply=False) is False
    assert client.append("k", b"d", noreply=False) is True
    assert client.prepend("k", b"b", noreply=False) is True
    assert client.get("k") == b"bcd"


def test_pymemcache_cas():
    client = pymemcache_client()
    client.set("k", b"a", noreply=False)
    value, token = client.gets("k")
    assert value == b"a"
    assert client.cas("k", b"b", token, noreply=False) is True
    assert client.cas("k", b"c", token, noreply=False) is False
    assert client.cas("none", b"c", token, noreply=False) is None


def test_pymemcache_many():
    client = pymemcache_client()
    pairs = {f"key{number}": str(number).encode() for number in range(500)}
    assert client.set_many(pairs, noreply=False) == []
    assert client.get_many(list(pairs)) == pairs
    assert len(client.gets_many(list(pairs))) == 500
    assert client.delete_many(list(pairs), noreply=False) is True
    assert client.get_many(list(pairs)) == {}


def test_pymemcache_noreply():
    client = pymemcache_client(default_noreply=True)
    for number in range(1000):
        client.set(f"key{number}", b"v")
    assert client.get("key999") == b"v"
    client.delete("key999")
    assert client.get("key999") is None


def test_pymemcache_arithmetic():
    client = pymemcache_client()
    assert client.incr("n", 1, noreply=False) is None
    client.set("n", b"10", noreply=False)
    assert client.incr("n", 5, noreply=False) == 15
    assert client.decr("n", 6, noreply=False) == 9
    assert client.decr("n", 100, noreply=False) == 0


def test_pymemcache_touch_and_delete():
    client = pymemcache_client()
    client.set("k", b"v", noreply=False)
    assert client.touch("k", 100, noreply=False) is True
    assert client.touch("none", 100, noreply=False) is False
    assert client.raw_command(b"gat 100 k", end_tokens=b"END\r\n").startswith(b"VALUE k 0 1")
    assert client.delete("k", noreply=False) is True
    assert client.delete("k", noreply=False) is False


def test_pymemcache_large_values():
    from pymemcache.exceptions import MemcacheServerError

    client = pymemcache_client()
    assert client.set("k", LARGE, noreply=False) is True
    assert client.get("k") == LARGE
    try:
        client.set("k", TOO_LARGE, noreply=False)
    except MemcacheServerError as error:
        assert b"too large" in error.args[0]
    else:
        raise AssertionError("a value beyond the limit was stored")
    assert client.get("k") is None


def test_pymemcache_keys():
    client = pymemcache_client(allow_unicode_keys=True)
    for key in ("k" * 250, "schl\u00fcssel", "a:b/c?d=%41", "\u20ac"):
        assert client.set(key, b"v", noreply=False) is True, key
        assert client.get(key) == b"v", key


def test_pymemcache_server_commands():
    client = pymemcache_client()
    assert client.version().startswith(b"1.6")
    statistics = client.stats()
    assert statistics[b"pid"] > 0
    assert b"curr_items" in statistics
    assert client.stats("settings")[b"maxconns"] > 0
    assert client.raw_command(b"mn") == b"MN"
    client.quit()


def test_pymemcache_pool_and_hash_client():
    from pymemcache.client.base import PooledClient
    from pymemcache.client.hash import HashClient

    pool = PooledClient((HOST, PORT), max_pool_size=4)
    assert pool.set("k", b"v", noreply=False) is True
    assert pool.get("k") == b"v"
    hashed = HashClient([(HOST, PORT)])
    assert hashed.set("k2", b"v", noreply=False) is True
    assert hashed.get_many(["k", "k2"]) == {"k": b"v", "k2": b"v"}


# ---- python-memcached ---------------------------------------------------------------------------


def memcache_client():
    import memcache

    client = memcache.Client([ADDRESS], socket_timeout=10, cache_cas=True)
    client.flush_all()
    return client


def test_python_memcached_values():
    client = memcache_client()
    for value in ("text", b"bytes", 17, 2**70, {"a": [1, 2]}, None, "x" * 5000):
        assert client.set("k", value), value
        assert client.get("k") == value, value


def test_python_memcached_commands():
    client = memcache_client()
    assert client.add("k", "a")
    assert not client.add("k", "b")
    assert client.replace("k", "c")
    assert client.append("k", "d")
    assert client.prepend("k", "b")
    assert client.get("k") == "bcd"
    assert client.touch("k", 100)
    assert client.delete("k")
    assert client.get("k") is None


def test_python_memcached_arithmetic():
    client = memcache_client()
    assert client.set("n", "20")
    assert client.incr("n") == 21
    assert client.decr("n", 2) == 19
    assert client.incr("none") is None


def test_python_memcached_many():
    client = memcache_client()
    pairs = {f"key{number}": number for number in range(200)}
    assert client.set_multi(pairs) == []
    assert client.get_multi(pairs) == pairs
    assert client.delete_multi(pairs)
    assert client.get_multi(pairs) == {}


def test_python_memcached_cas():
    client = memcache_client()
    client.set("k", "a")
    assert client.gets("k") == "a"
    assert client.cas("k", "b")
    assert client.gets("k") == "b"
    memcache_other = memcache_writer()
    assert memcache_other.set("k", "other")
    assert not client.cas("k", "c")


def memcache_writer():
    import memcache

    return memcache.Client([ADDRESS])


def test_python_memcached_statistics():
    client = memcache_client()
    [(server, statistics)] = client.get_stats()
    assert ADDRESS in server
    assert int(statistics["pid"]) > 0
    assert client.get_stats("settings")


# ---- pylibmc (libmemcached) ---------------------------------------------------------------------


def pylibmc_client(**behaviors):
    import pylibmc

    client = pylibmc.Client([ADDRESS], binary=False, behaviors=behaviors)
    client.flush_all()
    return client


def test_pylibmc_values():
    client = pylibmc_client(tcp_nodelay=True)
    for value in ("text", b"bytes", 17, True, {"a": [1, 2]}, "x" * 5000):
        assert client.set("k", value), value
        assert client.get("k") == value, value
    assert client.get("none") is None


def test_pylibmc_commands():
    client = pylibmc_client()
    assert client.add("k", "a")
    assert not client.add("k", "b")
    assert client.replace("k", "c")
    assert client.append("k", "d")
    assert client.prepend("k", "b")
    assert client.get("k") == "bcd"
    assert client.touch("k", 100)
    assert client.delete("k")
    assert not client.delete("k")


def test_pylibmc_arithmetic():
    client = pylibmc_client()
    assert client.set("n", 5)
    assert client.incr("n", 3) == 8
    assert client.decr("n", 2) == 6


def test_pylibmc_many():
    client = pylibmc_client(no_block=True)
    pairs = {f"key{number}": number for number in range(300)}
    assert client.set_multi(pairs) == []
    assert client.get_multi(list(pairs)) == pairs
    assert client.delete_multi(list(pairs))
    assert client.get_multi(list(pairs)) == {}


def test_pylibmc_cas():
    client = pylibmc_client(cas=True)
    assert client.set("k", "a")
    value, token = client.gets("k")
    assert value == "a"
    assert client.cas("k", "b", token)
    assert not client.cas("k", "c", token)


def test_pylibmc_large_values():
    import pylibmc

    client = pylibmc_client()
    assert client.set("k", LARGE)
    assert client.get("k") == LARGE
    try:
        client.set("k", TOO_LARGE)
    except (pylibmc.Error, pylibmc.TooBig):
        pass
    else:
        raise AssertionError("a value beyond the limit was stored")
    assert client.set("k2", "after")
    assert client.get("k2") == "after"


def test_pylibmc_statistics():
    client = pylibmc_client()
    [(_, statistics)] = client.get_stats()
    version = statistics["version"]
    version = version.decode() if isinstance(version, bytes) else version
    assert version.startswith("1.6")


def main():
    passed = {}
    failed = {}
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        library = name.split("_")[1].replace("python", "python-memcached")
        passed.setdefault(library, 0)
        failed.setdefault(library, 0)
        try:
            test()
            passed[library] += 1
        except Exception:
            failed[library] += 1
            print(f"{name}:")
            traceback.print_exc(limit=-2)
    for library in passed:
        print(f"{library}: {passed[library]} passed, {failed[library]} failed")
    return 1 if any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
