/* Asks libmemcached itself which server owns a key, and prints one line for each configuration:
 *
 *     ring KIND HASH SERVERS WEIGHTS PORTS DIGEST OWNERS...
 *     hash NAME KEY_IN_HEX VALUE
 *
 * DIGEST is FNV-1a (64 bits) over the owners of key-0 to key-199999, one byte each; OWNERS are those
 * of the first 16 keys. Server i is 10.0.(i/250).(i%250+1); its port is 11211, or 11211 + i%3 where
 * PORTS says "mixed"; its weight 1, or 1 + i*7%5 where WEIGHTS says "mixed". The same lines, frozen,
 * are tests/vectors/ring_libmemcached.txt.
 */
#include <libhashkit-1.0/hashkit.h>
#include <libmemcached/memcached.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { KEYS = 200000, SHOWN = 16 };

struct kind {
    const char *name, *hash;
    int weighted, spy, modula;
    memcached_hash_t key_hash;
};

static const struct kind kinds[] = {
    {"weighted", "md5", 1, 0, 0, MEMCACHED_HASH_MD5},
    {"libmemcached_spy", "md5", 1, 1, 0, MEMCACHED_HASH_MD5},
    {"consistent", "one_at_a_time", 0, 0, 0, MEMCACHED_HASH_DEFAULT},
    {"consistent", "md5", 0, 0, 0, MEMCACHED_HASH_MD5},
    {"consistent", "fnv1a_32", 0, 0, 0, MEMCACHED_HASH_FNV1A_32},
    {"modula", "one_at_a_time", 0, 0, 1, MEMCACHED_HASH_DEFAULT},
};

static void set(memcached_st *client, memcached_behavior_t behavior, uint64_t value) {
    if (memcached_behavior_set(client, behavior, value) != MEMCACHED_SUCCESS)
        fprintf(stderr, "behavior %d refused\n", (int)behavior);
}

static void ring(const struct kind *kind, uint32_t servers, int weights, int ports) {
    memcached_st *client = memcached_create(NULL);
    if (kind->weighted)
        set(client, MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1);
    else {
        set(client, MEMCACHED_BEHAVIOR_HASH, kind->key_hash);
        set(client, MEMCACHED_BEHAVIOR_DISTRIBUTION,
            kind->modula ? MEMCACHED_DISTRIBUTION_MODULA : MEMCACHED_DISTRIBUTION_CONSISTENT);
    }
    if (kind->spy)
        set(client, MEMCACHED_BEHAVIOR_DISTRIBUTION, MEMCACHED_DISTRIBUTION_CONSISTENT_KETAMA_SPY);
    memcached_server_list_st list = NULL;
    memcached_return_t result;
    for (uint32_t at = 0; at < servers; at++) {
        char host[32];
        snprintf(host, sizeof host, "10.0.%u.%u", at / 250, at % 250 + 1);
        list = memcached_server_list_append_with_weight(
            list, host, 11211 + (ports ? at % 3 : 0), weights ? 1 + at * 7 % 5 : 1, &result);
    }
    memcached_server_push(client, list);
    memcached_server_list_free(list);
    uint64_t digest = 0xcbf29ce484222325u;
    uint32_t shown[SHOWN];
    for (int number = 0; number < KEYS; number++) {
        char key[32];
        int length = snprintf(key, sizeof key, "key-%d", number);
        uint32_t owner = memcached_generate_hash(client, key, (size_t)length);
        digest = (digest ^ owner) * 0x100000001b3u;
        if (number < SHOWN)
            shown[number] = owner;
    }
    printf("ring %s %s %u %s %s %016llx", kind->name, kind->hash, servers,
           weights ? "mixed" : "equal", ports ? "mixed" : "11211", (unsigned long long)digest);
    for (int at = 0; at < SHOWN; at++)
        printf(" %u", shown[at]);
    printf("\n");
    memcached_free(client);
}

struct hash {
    const char *name;
    uint32_t (*function)(const char *, size_t);
};

static const struct hash hashes[] = {
    {"one_at_a_time", libhashkit_one_at_a_time}, {"md5", libhashkit_md5},
    {"crc32", libhashkit_crc32},                 {"fnv1_64", libhashkit_fnv1_64},
    {"fnv1a_64", libhashkit_fnv1a_64},           {"fnv1_32", libhashkit_fnv1_32},
    {"fnv1a_32", libhashkit_fnv1a_32},
    {"murmur", libhashkit_murmur},               {"jenkins", libhashkit_jenkins},
};

static void hash_lines(const struct hash *hash) {
    uint64_t state = 42;
    for (int length = 1; length <= 40; length++) {
        char key[40] __attribute__((aligned(8)));
        for (int at = 0; at < length; at++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            key[at] = (char)(state >> 56);
        }
        printf("hash %s ", hash->name);
        for (int at = 0; at < length; at++)
            printf("%02x", (unsigned char)key[at]);
        printf(" %08x\n", hash->function(key, (size_t)length));
    }
}

int main(void) {
    static const uint32_t sizes[] = {1, 2, 4, 25, 50, 100};
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
        for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++)
            for (int weights = 0; weights < 2; weights++)
                for (int ports = 0; ports < 2; ports++)
                    ring(&kinds[kind], sizes[size], weights, ports);
    for (size_t hash = 0; hash < sizeof hashes / sizeof *hashes; hash++)
        hash_lines(&hashes[hash]);
    return 0;
}
