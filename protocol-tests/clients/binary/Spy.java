// Drives spymemcached over the binary protocol.
//
//     java -cp spymemcached.jar Spy.java HOST PORT [USER PASSWORD]

import java.net.InetSocketAddress;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import net.spy.memcached.CASResponse;
import net.spy.memcached.CASValue;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.ConnectionFactoryBuilder.Protocol;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.auth.AuthDescriptor;
import net.spy.memcached.auth.PlainCallbackHandler;

public class Spy {
    static void check(String name, boolean holds) {
        if (!holds) {
            System.err.println("spymemcached: " + name);
            System.exit(1);
        }
    }

    static MemcachedClient client(String[] args, String password) throws Exception {
        var builder = new ConnectionFactoryBuilder().setProtocol(Protocol.BINARY);
        if (args.length > 2) {
            // AuthDescriptor.typical asks for CRAM-MD5 first, and never for PLAIN after it.
            var who = new PlainCallbackHandler(args[2], password);
            builder.setAuthDescriptor(new AuthDescriptor(new String[] {"PLAIN"}, who));
        }
        var server = new InetSocketAddress(args[0], Integer.parseInt(args[1]));
        return new MemcachedClient(builder.build(), List.of(server));
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SunLogger");
        java.util.logging.LogManager.getLogManager().reset();
        var client = client(args, args.length > 3 ? args[3] : null);
        check("flush", client.flush().get(10, TimeUnit.SECONDS));
        check("set", client.set("k", 100, "value").get());
        check("get", "value".equals(client.get("k")));
        check("a miss", client.get("none") == null);
        check("add", !client.add("k", 0, "x").get());
        check("replace", !client.replace("none", 0, "x").get());
        CASValue<Object> found = client.gets("k");
        check("cas", client.cas("k", found.getCas(), "other") == CASResponse.OK);
        check("an old token", client.cas("k", found.getCas(), "x") == CASResponse.EXISTS);
        check("incr with a start", client.incr("n", 1, 10L) == 10);
        check("incr", client.incr("n", 5) == 15);
        check("decr", client.decr("n", 20) == 0);
        check("touch", client.touch("k", 1000).get());
        check("gat", "other".equals(client.getAndTouch("k", 1000).getValue()));
        var keys = IntStream.range(0, 200).mapToObj(at -> "key" + at).collect(Collectors.toList());
        for (var key : keys) {
            client.set(key, 0, key);
        }
        Map<String, Object> many = client.getBulk(keys);
        check("getBulk", many.size() == 200);
        client.set("s", 0, "b").get();
        check("append", client.append("s", "c").get() && client.prepend("s", "a").get());
        check("the three", "abc".equals(client.get("s")));
        var large = "x".repeat(900_000);
        check("a large value", client.set("large", 0, large).get() && large.equals(client.get("large")));
        check("delete", client.delete("k").get() && !client.delete("k").get());
        check("stats", !client.getStats().values().iterator().next().isEmpty());
        client.shutdown(5, TimeUnit.SECONDS);
        if (args.length > 2) {
            var other = client(args, "wrong");
            try {
                check("a wrong password", !other.set("k", 0, "v").get(3, TimeUnit.SECONDS));
            } catch (Exception refused) {
                // It goes on trying to log in.
            }
            other.shutdown();
        }
        System.out.println("spymemcached (binary" + (args.length > 2 ? ", SASL" : "") + "): passed");
        System.exit(0);
    }
}
