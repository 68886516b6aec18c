<?php
// Drives php-memcached over the binary protocol: its session handler, which uses it by default,
// with locking and without, and what Symfony's cache adapter does (get_multi, touch and keys with
// bytes that no line could hold).
//
//     sessions.php HOST PORT [USER PASSWORD]

[, $host, $port] = $argv;
[$user, $password] = [$argv[3] ?? null, $argv[4] ?? null];

function check(string $name, bool $holds): void
{
    if (!$holds) {
        fwrite(STDERR, "php-memcached: $name\n");
        exit(1);
    }
}

function client(string $host, string $port, ?string $user, ?string $password): Memcached
{
    $client = new Memcached();
    $client->setOption(Memcached::OPT_BINARY_PROTOCOL, true);
    $client->setOption(Memcached::OPT_TCP_NODELAY, true);
    $client->addServer($host, (int) $port);
    if ($user !== null) {
        $client->setSaslAuthData($user, $password);
    }
    return $client;
}

$client = client($host, $port, $user, $password);
$client->flush();
check('set', $client->set("a\0b c", ['x' => [1, 2.5, true]], 100));
check('get', $client->get("a\0b c") === ['x' => [1, 2.5, true]]);
check('touch', $client->touch("a\0b c", 1000));
check('a miss', $client->get('none') === false);
check('and its code', $client->getResultCode() === Memcached::RES_NOTFOUND);
check('setMulti', $client->setMulti(array_fill_keys(range(1, 200), 'value')));
check('getMulti', count($client->getMulti(range(1, 210))) === 200);
check('increment with a start', $client->increment('n', 1, 10) === 10);
check('increment', $client->increment('n', 5) === 15);
$found = $client->get('n', null, Memcached::GET_EXTENDED);
check('cas', $client->cas($found['cas'], 'n', 1));
check('an old token', !$client->cas($found['cas'], 'n', 2));
check('deleteMulti', array_unique(array_values($client->deleteMulti(range(1, 200)))) === [true]);
check('a large value', $client->set('large', str_repeat('x', 900000)));
check('of its length', strlen($client->get('large')) === 900000);
check('stats', (int) current($client->getStats())['curr_items'] > 0);
check('add', !$client->add('large', 1) && $client->add('lock', 1));

foreach (['Off', 'On'] as $locking) {
    ini_set('session.save_handler', 'memcached');
    ini_set('session.save_path', "$host:$port");
    ini_set('session.use_cookies', '0');
    ini_set('session.cache_limiter', '');
    ini_set('memcached.sess_locking', $locking);
    if ($user !== null) {
        ini_set('memcached.sess_sasl_username', $user);
        ini_set('memcached.sess_sasl_password', $password);
    }
    check('binary by default', ini_get('memcached.sess_binary_protocol') === '1');
    $id = bin2hex(random_bytes(16));
    session_id($id);
    check("session_start, locking $locking", session_start());
    $_SESSION['cart'] = ['apples' => 3];
    check('session_write_close', session_write_close());
    session_id($id);
    check('session_start again', session_start());
    check('the session is there', ($_SESSION['cart'] ?? null) === ['apples' => 3]);
    check('session_regenerate_id', session_regenerate_id(true));
    check('session_destroy', session_destroy());
    $_SESSION = [];
}

if ($user !== null) {
    $other = client($host, $port, $user, 'wrong');
    check('a wrong password', !$other->set('k', 'v'));
}
printf("php-memcached %s (binary%s): passed\n", phpversion('memcached'), $user ? ', SASL' : '');
