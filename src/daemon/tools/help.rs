//! What `-h` behind each sub-command says.

pub(super) const CHECK: &str = "\
usage: distcached check DIR

Verifies every file of a data directory, and says what is where.

DIR is one that no server uses: of one in use, check a copy (distcached backup).
exit codes: 0 intact, 64 usage, 65 damaged, 74 not to be read, 75 in use, 78 of
another version
";

pub(super) const DUMP: &str = "\
usage: distcached dump [--salvage] DIR

Writes all items of a data directory to standard output, as commands of the text
protocol; \"distcached load\" stores them, and so does a socket.

--salvage    what is intact of a damaged directory

  distcached dump /var/lib/distcached > items
  distcached dump /var/lib/distcached | distcached load --to cache2:11211

exit codes: 0 done, 1 memory too small, 64 usage, 65 damaged, 74 input or output
failed, 75 in use, 78 of another version
";

pub(super) const REPAIR: &str = "\
usage: distcached repair DIR

Makes a damaged data directory whole with what is intact. The damaged files are
kept, with .damaged behind their names.

exit codes: 0 done, 64 usage, 65 beyond repair, 74 input or output failed, 75 in
use, 78 of another version
";

pub(super) const BACKUP: &str = "\
usage: distcached backup --from DIR --to DIR

Copies a data directory, which a server may use meanwhile, to a new one, and
verifies the copy. A server starts with the copy as it would with the original.

  distcached backup --from /var/lib/distcached --to /backup/$(date +%F)

exit codes: 0 done, 64 usage, 65 damaged, 74 input or output failed
";

pub(super) const LOAD: &str = "\
usage: distcached load --to HOST:PORT [option]... [FILE | -]
       distcached load --to HOST:PORT --from HOST:PORT [option]...

Stores items in a running server: those of a dump (of standard input without
FILE), or those of another running server, memcached or distcached. A dump is
what \"distcached dump\" or \"memcached-tool HOST:PORT dump\" wrote.

--to-user=NAME, --from-user=NAME  log in; the passwords are expected in the
                                  environment, in DISTCACHED_TO_PASSWORD and
                                  DISTCACHED_FROM_PASSWORD
--to-tls-ca=FILE, --from-tls-ca=FILE
                                  speak TLS; FILE has the authorities of the
                                  server's certificate (PEM)
--to-tls-cert=FILE, --to-tls-key=FILE, --from-tls-cert=FILE, --from-tls-key=FILE
                                  a certificate and its key, if the server asks
                                  for one (PEM)

  distcached load --from old:11211 --to new:11211
  memcached-tool old:11211 dump | distcached load --to new:11211

exit codes: 0 done, 1 the server refused items, 64 usage, 65 the dump is
damaged, 74 input or output failed
";
