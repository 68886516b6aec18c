// Values as spymemcached stores them, and back.
//
//   Values.java write HOST PORT    stores the table, keys like spymemcached:text
//   Values.java read HOST PORT     reads what the Rust client stored, and compares

import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.transcoders.SerializingTranscoder;

class Values {
    static Map<String, Object> table() {
        Map<String, Object> table = new LinkedHashMap<>();
        table.put("ascii", "football");
        table.put("text", "Pel\u00e9");
        table.put("empty", "");
        table.put("integer", 42);
        table.put("negative", -7);
        table.put("large", 9007199254740993L);
        table.put("bytes", new byte[] {0, (byte) 255, 13, 10});
        table.put("ascii_bytes", "football".getBytes());
        table.put("digits", "42");
        table.put("long", "x".repeat(5000));
        table.put("float", 1.5);
        table.put("small_float", 1.5f);
        table.put("infinite", Double.POSITIVE_INFINITY);
        table.put("true", true);
        table.put("false", false);
        return table;
    }

    public static void main(String[] arguments) throws Exception {
        boolean writes = arguments[0].equals("write");
        SerializingTranscoder transcoder = new SerializingTranscoder();
        transcoder.setCompressionThreshold(400);
        MemcachedClient client = new MemcachedClient(
            new InetSocketAddress(arguments[1], Integer.parseInt(arguments[2])));
        int wrong = 0;
        for (Map.Entry<String, Object> row : table().entrySet()) {
            Object value = row.getValue();
            if (writes) {
                client.set("spymemcached:" + row.getKey(), 0, value, transcoder).get();
                continue;
            }
            Object found = client.get("rust:java:" + row.getKey(), transcoder);
            boolean same = value instanceof byte[] bytes
                ? found instanceof byte[] other && Arrays.equals(bytes, other)
                : value.equals(found);
            if (!same) {
                System.err.println("spymemcached: " + row.getKey() + ": " + found);
                wrong++;
            }
        }
        client.shutdown();
        System.out.println("spymemcached: " + table().size() + " values "
            + (writes ? "stored" : "read"));
        System.exit(wrong == 0 ? 0 : 1);
    }
}
