# Drives Dalli over the binary protocol, its default before 5.0 and so Rails' mem_cache_store's.
#
#     dalli.rb HOST PORT [USER PASSWORD]

require 'dalli'
Dalli.logger.level = Logger::FATAL

host, port, user, password = ARGV
options = user ? { username: user, password: password } : {}
client = Dalli::Client.new("#{host}:#{port}", options)

def check(name, found, expected = true)
  return if expected == found

  abort "dalli: #{name}: #{found.inspect} instead of #{expected.inspect}"
end

client.flush_all
check 'set', client.set('k', { 'a' => [1, 'b'] }) ? true : false
check 'get', client.get('k'), { 'a' => [1, 'b'] }
check 'a miss', client.get('none'), nil
check 'add', client.add('k', 'x') ? true : false, false
client.replace('none', 'x')
check 'what replace left alone', client.get('none'), nil
check 'cas', client.cas('k') { |value| value.merge('c' => 1) } ? true : false
check 'the result of cas', client.get('k'), { 'a' => [1, 'b'], 'c' => 1 }
check 'incr with a start', client.incr('n', 1, nil, 10), 10
check 'incr', client.incr('n', 5), 15
check 'decr', client.decr('n', 20), 0
client.set('s', 'b', 0, raw: true)
client.append('s', 'c')
client.prepend('s', 'a')
check 'append and prepend', client.get('s', raw: true), 'abc'
client.multi { 200.times { |number| client.set("key#{number}", number) } }
keys = (0...200).map { |number| "key#{number}" }
check 'get_multi', client.get_multi(*keys, 'none').length, 200
check 'a compressed value', client.set('z', 'z' * 500_000, 0, compress: true) ? true : false
check 'its length', client.get('z').length, 500_000
check 'touch', client.touch('k', 100) ? true : false
check 'gat', client.gat('k', 200), { 'a' => [1, 'b'], 'c' => 1 }
check 'delete', client.delete('k')
check 'fetch', client.fetch('f', 10) { 7 }, 7
check 'stats', client.stats.values.first['curr_items'].to_i.positive?
check 'version', client.version.values.first.start_with?('1.6.')
client.close
if user
  begin
    Dalli::Client.new("#{host}:#{port}", username: user, password: 'wrong').get('k')
    abort 'dalli: a wrong password was taken'
  rescue Dalli::DalliError
    nil
  end
end
puts "dalli #{Dalli::VERSION} (binary#{', SASL' if user}): passed"
