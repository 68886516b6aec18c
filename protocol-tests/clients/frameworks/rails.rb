# Rails' cache store on two servers, one of which ends.
#
#   rails.rb HOST:PORT HOST:PORT     SERVER_PIDS: their processes

require "active_support"
require "active_support/cache"
require "active_support/cache/mem_cache_store"
require "dalli"

def check(what)
  raise "not so: #{what}" unless yield
end

Dalli.logger.level = Logger::FATAL
cache = ActiveSupport::Cache::MemCacheStore.new(*ARGV, namespace: "app", expires_in: 60,
                                                       socket_timeout: 2)

[ "text", "\u00fcber", "\0bytes\r\n".b, 42, -7, 1.5, nil, true, { a: [ 1, { b: 2 } ] }, "x" * 200_000 ]
  .each_with_index do |value, number|
    cache.write("value #{number}", value)
    check("value #{number}") { cache.read("value #{number}") == value }
    check("value #{number} is there") { cache.exist?("value #{number}") }
  end

check("a miss") { cache.read("nothing").nil? && !cache.exist?("nothing") }
check("fetch makes it") { cache.fetch("made") { "once" } == "once" }
check("fetch finds it") { cache.fetch("made") { "twice" } == "once" }
check("fetch by force") { cache.fetch("made", force: true) { "twice" } == "twice" }
check("unless it exists") { !cache.write("made", "thrice", unless_exist: true) && cache.read("made") == "twice" }
check("delete") { cache.delete("made") && cache.read("made").nil? }

cache.write("count", 5, raw: true)
check("increment") { cache.increment("count") == 6 && cache.increment("count", 10) == 16 }
check("decrement") { cache.decrement("count", 6) == 10 && cache.read("count", raw: true).to_i == 10 }

many = (0...200).to_h { |number| [ "many #{number}", number ] }
cache.write_multi(many)
check("read_multi") { cache.read_multi(*many.keys, "nothing") == many }
check("fetch_multi") { cache.fetch_multi("many 0", "new") { |name| name * 2 } == { "many 0" => 0, "new" => "newnew" } }
check("delete_multi") { cache.delete_multi(many.keys.first(100)) == 100 }
check("what is left") { cache.read_multi(*many.keys).size == 100 }

# A long name is shortened by the store, and one with blanks and bytes beyond ASCII is escaped.
[ "long" * 100, "a b\tc", "\u00fcber" ].each do |name|
  cache.write(name, name)
  check(name) { cache.read(name) == name }
end

cache.write("short", 1, expires_in: 1)
cache.write("race", 1, expires_in: 1)
sleep 2.1
check("expired") { cache.read("short").nil? }
check("one recomputes") { cache.fetch("race", race_condition_ttl: 10, expires_in: 60) { 2 } == 2 }

cache.clear
check("cleared") { cache.read("race").nil? }

200.times { |number| cache.write("key #{number}", number) }
Process.kill("KILL", ENV.fetch("SERVER_PIDS").split.first.to_i)
sleep 0.2
left = (0...200).count { |number| cache.read("key #{number}") == number }
200.times { |number| cache.write("key #{number}", number) }
again = (0...200).count { |number| cache.read("key #{number}") == number }
check("goes on on the other server: #{left} left, #{again} again") { left > 0 && again > 190 }
puts "rails #{ActiveSupport::VERSION::STRING}: the store passed, #{left} of 200 keys left with a server away"
