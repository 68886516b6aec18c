/* The part of `clients` that libmemcached (C) plays: gets or sets of one thread for some seconds.
 *
 *     libmemcached SERVERS KEYS VALUE_BYTES BATCH SECONDS get|set
 *
 * SERVERS is host:port,...; the keys are key-0 to key-(KEYS-1), stored beforehand; BATCH keys are
 * asked for at a time (1: memcached_get); sets are single ones. Prints the keys and the nanoseconds
 * of wall clock and of CPU that took.
 */
#include <libmemcached/memcached.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static unsigned long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (unsigned long long)time.tv_sec * 1000000000u + (unsigned long long)time.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "libmemcached: %s\n", what);
    exit(1);
}

int main(int count, char **words) {
    if (count != 7)
        fail("SERVERS KEYS VALUE_BYTES BATCH SECONDS get|set");
    int sets = strcmp(words[6], "set") == 0;
    unsigned keys = (unsigned)atoi(words[2]), batch = (unsigned)atoi(words[4]);
    size_t value_bytes = (size_t)atoi(words[3]);
    unsigned long long duration = (unsigned long long)(atof(words[5]) * 1e9);
    memcached_st *client = memcached_create(NULL);
    memcached_behavior_set(client, MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1);
    memcached_behavior_set(client, MEMCACHED_BEHAVIOR_TCP_NODELAY, 1);
    memcached_server_list_st list = memcached_servers_parse(words[1]);
    memcached_server_push(client, list);
    char (*names)[32] = malloc(batch * sizeof *names);
    const char **pointers = malloc(batch * sizeof *pointers);
    size_t *lengths = malloc(batch * sizeof *lengths);
    char *stored = malloc(value_bytes);
    memset(stored, 'x', value_bytes);
    unsigned long long read = 0, start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    unsigned next = 0;
    memcached_return_t result;
    while (now(CLOCK_MONOTONIC) - start < duration) {
        for (unsigned at = 0; at < batch; at++) {
            lengths[at] = (size_t)snprintf(names[at], sizeof *names, "key-%u", next);
            pointers[at] = names[at];
            next = next + 7 < keys ? next + 7 : (next + 7) % keys;
        }
        if (sets) {
            result = memcached_set(client, names[0], lengths[0], stored, value_bytes, 0, 0);
            if (result != MEMCACHED_SUCCESS)
                fail("set failed");
            read++;
            continue;
        }
        if (batch == 1) {
            size_t length;
            uint32_t flags;
            char *value = memcached_get(client, names[0], lengths[0], &length, &flags, &result);
            if (value == NULL || length != value_bytes)
                fail("a value is missing or wrong");
            free(value);
            read++;
            continue;
        }
        if (memcached_mget(client, pointers, lengths, batch) != MEMCACHED_SUCCESS)
            fail("mget failed");
        memcached_result_st item;
        memcached_result_create(client, &item);
        unsigned found = 0;
        while (memcached_fetch_result(client, &item, &result) != NULL) {
            /* What a caller who keeps the value does, as the other clients do. */
            size_t length = memcached_result_length(&item);
            char *copy = malloc(length);
            memcpy(copy, memcached_result_value(&item), length);
            found += length == value_bytes && copy[0] == 'x';
            free(copy);
        }
        memcached_result_free(&item);
        if (found != batch)
            fail("values are missing or wrong");
        read += batch;
    }
    printf("%llu %llu %llu\n", read, now(CLOCK_MONOTONIC) - start,
           now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    return 0;
}
