"""Drives pylibmc and python-binary-memcached, both over the binary protocol.

    python_binary.py HOST PORT [USER PASSWORD]

With a user and a password they log in by SASL, and a wrong password has to be refused. Every
function named test_* is one test.
"""

import sys
import traceback

HOST, PORT = sys.argv[1], int(sys.argv[2])
LOGIN = sys.argv[3:5]
ADDRESS = f"{HOST}:{PORT}"
LARGE = b"x" * 1_000_000
TOO_LARGE = b"x" * 2_000_000


def pylibmc_client(**changes):
    import pylibmc

    login = dict(zip(("username", "password"), LOGIN))
    return pylibmc.Client([ADDRESS], binary=True, **{**login, **changes})


def test_pylibmc_values():
    import pylibmc

    client = pylibmc_client()
    assert client.flush_all()
    for value in (b"bytes", "text", 7, 2**40, 1.5, [1, {"a": b"b"}], b"", LARGE):
        assert client.set("k", value)
        assert client.get("k") == value
    assert client.get("none") is None
    assert client.add("k", b"x") is False
    try:
        # Over text it answers False.
        assert not client.replace("none", b"x")
    except pylibmc.NotFound:
        pass
    assert client.delete("k") and not client.delete("k")


def test_pylibmc_many():
    client = pylibmc_client()
    items = {f"key{number}": number for number in range(300)}
    assert client.set_multi(items) == []
    assert client.get_multi([*items, "none"]) == items
    assert client.delete_multi(list(items))
    assert client.get_multi(list(items)) == {}


def test_pylibmc_numbers_and_joins():
    client = pylibmc_client()
    client.set("n", 5)
    assert client.incr("n", 3) == 8
    assert client.decr("n", 20) == 0
    client.set("s", b"b")
    assert client.append("s", b"c") and client.prepend("s", b"a")
    assert client.get("s") == b"abc"


def test_pylibmc_touch_and_stats():
    client = pylibmc_client()
    client.set("k", b"v", time=100)
    assert client.touch("k", 1000)
    assert not client.touch("none", 1000)
    ((_, stats),) = client.get_stats()
    # It knows some of them by name and leaves out the others.
    assert b"curr_items" in stats or "curr_items" in stats


def test_pylibmc_too_large():
    import pylibmc

    client = pylibmc_client()
    try:
        client.set("k", TOO_LARGE)
        raise AssertionError("it was taken")
    except pylibmc.TooBig:
        pass
    assert client.set("k", b"small") and client.get("k") == b"small"


def test_pylibmc_login():
    import pylibmc

    if not LOGIN:
        return
    try:
        pylibmc_client(password="wrong").set("k", b"v")
        raise AssertionError("a wrong password was taken")
    except pylibmc.Error:
        pass


def bmemcached_client(password=None):
    import bmemcached

    user, given = LOGIN or (None, None)
    return bmemcached.Client((ADDRESS,), user, password or given)


def test_bmemcached_values():
    client = bmemcached_client()
    assert client.flush_all()
    for value in (b"bytes", "text", 7, 2**40, [1, {"a": b"b"}], "x" * 100_000):
        assert client.set("k", value)
        assert client.get("k") == value
    assert client.get("none") is None
    assert client.add("k", "x") is False
    assert client.replace("none", "x") is False
    assert client.delete("k")
    assert client.get("k") is None


def test_bmemcached_cas():
    client = bmemcached_client()
    client.set("k", "first")
    value, token = client.gets("k")
    assert value == "first" and token
    assert client.cas("k", "second", token)
    assert not client.cas("k", "third", token)
    assert client.get("k") == "second"


def test_bmemcached_many_and_numbers():
    client = bmemcached_client()
    items = {f"key{number}": f"value{number}" for number in range(100)}
    assert client.set_multi(items) == []
    assert client.get_multi([*items, "none"]) == items
    client.delete("n")
    # The first call makes the number.
    assert client.incr("n", 3, default=5) == 5
    assert client.incr("n", 3) == 8
    assert client.decr("n", 20) == 0
    assert client.delete_multi(list(items))


def test_bmemcached_statistics():
    (stats,) = bmemcached_client().stats().values()
    assert str(stats.get("version", stats.get(b"version"))).strip("b'").startswith("1.6.")


def test_bmemcached_login():
    if not LOGIN:
        return
    try:
        taken = bmemcached_client(password="wrong").set("k", "v")
    except Exception as error:  # Its own class, which differs by version.
        taken = "Auth" in repr(error) and False
    assert not taken


failed = 0
tests = [(name, test) for name, test in sorted(globals().items()) if name.startswith("test_")]
for name, test in tests:
    try:
        test()
    except Exception:
        failed += 1
        print(f"{name}:")
        traceback.print_exc()
kind = "binary, SASL" if LOGIN else "binary"
print(f"pylibmc and python-binary-memcached ({kind}): {len(tests) - failed} of {len(tests)} passed")
sys.exit(failed != 0)
