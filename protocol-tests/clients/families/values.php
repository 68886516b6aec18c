<?php
// Values as php-memcached stores them, and back.
//
//   values.php write HOST PORT    stores the table, keys like php:text
//   values.php read HOST PORT     reads what the Rust client stored, and compares

[, $mode, $host, $port] = $argv;
$table = [
    'ascii' => 'football',
    'text' => "Pel\u{e9}",
    'empty' => '',
    'integer' => 42,
    'negative' => -7,
    'large' => 9007199254740993,
    'bytes' => "\x00\xff\r\n",
    'long' => str_repeat('x', 5000),
    'digits' => '42',
    'float' => 1.5,
    'infinite' => INF,
    'true' => true,
    'false' => false,
    'list' => [1, 'a', null],
];
$client = new Memcached();
$client->setOption(Memcached::OPT_SERIALIZER, Memcached::SERIALIZER_JSON_ARRAY);
$client->setOption(Memcached::OPT_COMPRESSION_TYPE, Memcached::COMPRESSION_ZLIB);
$client->addServer($host, (int) $port);
foreach ($table as $key => $value) {
    if ($mode === 'write') {
        if (!$client->set("php:$key", $value)) {
            exit("php: $key: " . $client->getResultMessage() . "\n");
        }
    } else {
        $found = $client->get("rust:php:$key");
        if ($found !== $value) {
            fwrite(STDERR, "php: $key: " . var_export($found, true) . "\n");
            exit(1);
        }
    }
}
echo "php-memcached: ", count($table), $mode === 'write' ? " values stored\n" : " values read\n";
