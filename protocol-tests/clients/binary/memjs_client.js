// Drives the npm package `memjs`, which speaks nothing but the binary protocol.
//
//     memjs_client.js HOST PORT [USER PASSWORD]

'use strict';

const assert = require('assert');
const memjs = require('memjs');

const [host, port, username, password] = process.argv.slice(2);
const connect = (changes) => memjs.Client.create(`${host}:${port}`, {
  username, password, retries: 1, timeout: 5, ...changes,
});

async function main() {
  const client = connect({});
  const text = async (key) => {
    const { value } = await client.get(key);
    return value && value.toString('latin1');
  };
  await client.flush();
  assert.strictEqual(await client.set('k', 'value', { expires: 100 }), true);
  assert.strictEqual(await text('k'), 'value');
  assert.strictEqual(await text('none'), null);
  assert.strictEqual(await client.add('k', 'x', {}), false);
  assert.strictEqual(await client.replace('none', 'x', {}), false);
  assert.strictEqual(await client.touch('k', 1000), true);
  assert.strictEqual((await client.increment('n', 3, { initial: 5 })).value, 5);
  assert.strictEqual((await client.increment('n', 3, { initial: 5 })).value, 8);
  assert.strictEqual((await client.decrement('n', 20, { initial: 5 })).value, 0);
  assert.strictEqual(await client.append('k', '!'), true);
  // Its prepend sends an append.
  assert.strictEqual(await client.prepend('k', '?'), true);
  assert.strictEqual((await text('k')).length, 7);
  await Promise.all(Array.from({ length: 200 }, (_, at) => client.set(`key${at}`, `${at}`, {})));
  const found = await Promise.all(Array.from({ length: 200 }, (_, at) => text(`key${at}`)));
  assert.deepStrictEqual(found, Array.from({ length: 200 }, (_, at) => `${at}`));
  const large = 'x'.repeat(900000);
  await client.set('large', large, {});
  assert.strictEqual(await text('large'), large);
  assert.strictEqual(await client.delete('k'), true);
  assert.strictEqual(await client.delete('k'), false);
  client.close();
  if (username) {
    const other = connect({ password: 'wrong', retries: 0 });
    await assert.rejects(other.set('k', 'v', {}));
    other.close();
  }
  console.log(`memjs (binary${username ? ', SASL' : ''}): passed`);
}

setTimeout(() => { throw new Error('memjs: no answer'); }, 30000).unref();
main().catch((error) => { console.error('memjs:', error); process.exit(1); });
