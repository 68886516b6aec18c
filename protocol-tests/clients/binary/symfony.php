<?php
// Drives Symfony's MemcachedAdapter, which speaks the binary protocol by php-memcached, as
// Debian's php-symfony-cache has it.
//
//     symfony.php HOST PORT [USER PASSWORD]

require_once 'Symfony/Component/Cache/autoload.php';

use Symfony\Component\Cache\Adapter\MemcachedAdapter;
use Symfony\Component\Cache\Adapter\TagAwareAdapter;
use Symfony\Contracts\Cache\ItemInterface;

function check(string $name, bool $holds): void
{
    if (!$holds) {
        fwrite(STDERR, "Symfony: $name\n");
        exit(1);
    }
}

[, $host, $port] = $argv;
$login = isset($argv[3]) ? "$argv[3]:$argv[4]@" : '';
$client = MemcachedAdapter::createConnection("memcached://$login$host:$port");
check('it speaks the binary protocol', $client->getOption(Memcached::OPT_BINARY_PROTOCOL) == 1);
$cache = new MemcachedAdapter($client, 'app');
check('clear', $cache->clear());
$compute = function (ItemInterface $item) {
    $item->expiresAfter(60);
    return ['computed' => [1, 2.5, null]];
};
check('a miss is computed', $cache->get('key', $compute) === ['computed' => [1, 2.5, null]]);
check('a hit is not', $cache->get('key', fn () => 'other') === ['computed' => [1, 2.5, null]]);
check('hasItem', $cache->hasItem('key') && !$cache->hasItem('none'));
foreach (range(1, 200) as $number) {
    $cache->saveDeferred($cache->getItem("many.$number")->set($number));
}
check('commit', $cache->commit());
$found = array_map(fn ($item) => $item->get(), iterator_to_array($cache->getItems(['many.1', 'many.200', 'none'])));
check('getItems', $found === ['many.1' => 1, 'many.200' => 200, 'none' => null]);
check('deleteItems', $cache->deleteItems(['many.1', 'none']) && !$cache->hasItem('many.1'));
$tagged = new TagAwareAdapter($cache);
$tagged->get('page', fn (ItemInterface $item) => $item->tag(['user-7']) ? 'text' : '');
check('a tag is invalidated', $tagged->hasItem('page') && $tagged->invalidateTags(['user-7']) && !$tagged->hasItem('page'));
check('clear all', $cache->clear() && !$cache->hasItem('many.200'));
if ($login !== '') {
    $stranger = new MemcachedAdapter(MemcachedAdapter::createConnection("memcached://$argv[3]:wrong@$host:$port"));
    try {
        $taken = $stranger->save($stranger->getItem('key')->set(1));
    } catch (Exception $refused) {
        $taken = false;
    }
    check('a wrong password gets nowhere', !$taken);
}
echo 'Symfony, MemcachedAdapter (binary' . ($login === '' ? '' : ', SASL') . "): passed\n";
