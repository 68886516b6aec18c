// Drives the npm package `memcached` (text protocol) against a server.
//
//     node node_client.js HOST PORT

'use strict';

const assert = require('assert');
const { promisify } = require('util');
const Memcached = require('memcached');

const [host, port] = process.argv.slice(2);
const client = new Memcached(`${host}:${port}`, { retries: 0, timeout: 10000 });

const call = {};
for (const name of ['set', 'get', 'gets', 'getMulti', 'add', 'replace', 'append', 'prepend', 'cas',
  'del', 'incr', 'decr', 'touch', 'flush', 'version', 'stats', 'settings']) {
  call[name] = promisify(client[name].bind(client));
}

// The library reports NOT_STORED as an error with this message.
async function refused(promise) {
  try {
    return (await promise) === false;
  } catch (error) {
    return /not stored/i.test(error.message);
  }
}

const tests = {
  async 'set and get'() {
    assert.strictEqual(await call.set('k', 'value', 100), true);
    assert.strictEqual(await call.get('k'), 'value');
    assert.strictEqual(await call.get('none'), undefined);
  },
  async 'values keep their types'() {
    for (const value of ['text', 17, true, { a: [1, 2] }, 'x'.repeat(100000)]) {
      await call.set('k', value, 0);
      assert.deepStrictEqual(await call.get('k'), value);
    }
    await call.set('k', Buffer.from([0, 13, 10, 255]), 0);
    assert.deepStrictEqual(await call.get('k'), Buffer.from([0, 13, 10, 255]));
  },
  async 'add and replace'() {
    await call.flush();
    assert.strictEqual(await call.add('k', 'a', 0), true);
    assert.ok(await refused(call.add('k', 'b', 0)));
    assert.strictEqual(await call.replace('k', 'c', 0), true);
    assert.ok(await refused(call.replace('none', 'c', 0)));
  },
  async 'append and prepend'() {
    await call.set('k', 'c', 0);
    assert.strictEqual(await call.append('k', 'd'), true);
    assert.strictEqual(await call.prepend('k', 'b'), true);
    assert.strictEqual(await call.get('k'), 'bcd');
  },
  async 'many keys'() {
    const keys = [];
    for (let number = 0; number < 100; number += 1) {
      keys.push(`key${number}`);
      await call.set(`key${number}`, String(number), 0);
    }
    const values = await call.getMulti(keys);
    assert.strictEqual(Object.keys(values).length, 100);
    assert.strictEqual(values.key42, '42');
  },
  async 'cas'() {
    await call.set('k', 'a', 0);
    const { cas } = await call.gets('k');
    assert.strictEqual(await call.cas('k', 'b', cas, 0), true);
    assert.strictEqual(await call.cas('k', 'c', cas, 0), false);
  },
  async 'arithmetic'() {
    await call.set('n', 10, 0);
    assert.strictEqual(await call.incr('n', 5), 15);
    assert.strictEqual(await call.decr('n', 1), 14);
    assert.strictEqual(await call.incr('none', 1), false);
  },
  async 'touch and delete'() {
    await call.set('k', 'v', 0);
    assert.strictEqual(await call.touch('k', 100), true);
    assert.strictEqual(await call.del('k'), true);
    assert.strictEqual(await call.get('k'), undefined);
  },
  async 'version, stats and settings'() {
    const [version] = await call.version();
    assert.match(version.version, /^1\.6/);
    const [stats] = await call.stats();
    assert.ok(Number(stats.pid) > 0);
    const [settings] = await call.settings();
    assert.ok(Number(settings.maxconns) > 0);
  },
};

async function main() {
  let failed = 0;
  await call.flush();
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
    } catch (error) {
      failed += 1;
      console.log(`${name}: ${error.stack || error}`);
    }
  }
  const passed = Object.keys(tests).length - failed;
  console.log(`node memcached: ${passed} passed, ${failed} failed`);
  client.end();
  process.exitCode = failed === 0 ? 0 : 1;
}

main();
