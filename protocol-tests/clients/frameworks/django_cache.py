"""Django's cache and its sessions in it, on two servers, one of which ends.

    django_cache.py SERVER

Needs django and pymemcache.
"""

import sys
import time

import django
from django.conf import settings

from servers import Servers

# Objects of these kinds go through pickle, but for integers, which stay text for incr.
VALUES = ["text", "\u00fcber", b"\0bytes\r\n", 42, -7, 1.5, None, True, [1, {"a": (2,)}], "x" * 200_000]


def use(cache):
    for number, value in enumerate(VALUES):
        cache.set(f"value {number}".replace(" ", "_"), value, 60)
        assert cache.get(f"value_{number}", "none") == value, value
    assert cache.get("nothing") is None and cache.get("nothing", 1) == 1
    assert cache.add("added", 1) and not cache.add("added", 2) and cache.get("added") == 1
    assert cache.incr("added") == 2 and cache.incr("added", 10) == 12 and cache.decr("added", 2) == 10
    try:
        cache.incr("nothing")
        raise AssertionError("incr of what is not there")
    except ValueError:
        pass
    many = {f"many{number}": number for number in range(200)}
    assert cache.set_many(many) == []
    assert cache.get_many([*many, "nothing"]) == many
    cache.delete_many(list(many)[:100])
    assert cache.get_many(many) == dict(list(many.items())[100:])
    assert cache.get_or_set("made", lambda: "once") == "once" and cache.get("made") == "once"
    cache.set("versioned", 1, version=1)
    assert cache.incr_version("versioned") == 2 and cache.get("versioned", version=2) == 1
    cache.set("short", 1, 1)
    cache.set("touched", 1, 1)
    assert cache.touch("touched", 60) and not cache.touch("nothing", 60)
    assert cache.delete("made") and not cache.delete("made") and "made" not in cache
    time.sleep(2.1)
    assert "short" not in cache and "touched" in cache
    cache.set("gone", 1, 0)
    assert "gone" not in cache
    cache.set("kept", 1, None)
    assert "kept" in cache


def use_sessions():
    from django.contrib.sessions.backends.cache import SessionStore

    session = SessionStore()
    session["user"] = {"name": "bob", "cart": list(range(1000))}
    session.create()
    again = SessionStore(session_key=session.session_key)
    assert again["user"] == session["user"]
    again.cycle_key()
    assert not SessionStore().exists(session.session_key)
    assert SessionStore(session_key=again.session_key)["user"]["name"] == "bob"
    again.flush()


def main(program):
    with Servers(program, 2) as servers:
        settings.configure(SESSION_ENGINE="django.contrib.sessions.backends.cache", CACHES={"default": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": servers.addresses(),
            "OPTIONS": {"ignore_exc": True, "retry_attempts": 0, "dead_timeout": 60, "timeout": 2},
        }})
        django.setup()
        from django.core.cache import cache

        use(cache)
        use_sessions()
        numbers = range(200)
        for number in numbers:
            cache.set(f"key{number}", number)
        cache.clear()
        assert cache.get_many([f"key{number}" for number in numbers]) == {}
        for number in numbers:
            cache.set(f"key{number}", number)
        servers.end(0)
        # Half of the keys are misses now; everything goes on on the other server.
        left = [number for number in numbers if cache.get(f"key{number}") is not None]
        assert 0 < len(left) < 200, left
        for number in numbers:
            cache.set(f"key{number}", number)
        again = [number for number in numbers if cache.get(f"key{number}") == number]
        assert len(again) == 200, len(again)
    print(f"django {django.get_version()}: cache and sessions passed, {len(left)} of 200 keys left "
          "with a server away")


main(sys.argv[1])
