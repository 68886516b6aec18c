# Completion of distcached for bash: copy to /usr/share/bash-completion/completions/distcached.
_distcached() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    # --option=value arrives as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $before in
    -s | --unix-socket | -P | --pidfile | -Y | --auth-file | --config | --cluster-file | -e | \
        --memory-file | --log-file)
        mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    --data-dir)
        mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    -u | --user)
        mapfile -t COMPREPLY < <(compgen -u -- "$word"); return ;;
    --fsync)
        mapfile -t COMPREPLY < <(compgen -W "always everysec no" -- "$word"); return ;;
    --recover)
        mapfile -t COMPREPLY < <(compgen -W "strict salvage discard" -- "$word"); return ;;
    --on-log-error)
        mapfile -t COMPREPLY < <(compgen -W "refuse serve exit" -- "$word"); return ;;
    -B | --protocol)
        mapfile -t COMPREPLY < <(compgen -W "ascii auto binary" -- "$word"); return ;;
    -o | --extended)
        mapfile -t COMPREPLY < <(compgen -W "maxconns_fast no_maxconns_fast idle_timeout= no_modern ssl_chain_cert= ssl_key= ssl_keyformat= ssl_ca_cert= ssl_verify_mode= ssl_ciphers= ssl_min_version= ssl_session_cache" -- "$word"); return ;;
    esac
    # The tools, and what is behind them.
    local tools="check dump repair backup load"
    case ${COMP_WORDS[1]} in
    help)
        mapfile -t COMPREPLY < <(compgen -W "$tools" -- "$word"); return ;;
    check | repair)
        mapfile -t COMPREPLY < <(compgen -d -W "--help" -- "$word"); return ;;
    dump)
        mapfile -t COMPREPLY < <(compgen -d -W "--salvage --help" -- "$word"); return ;;
    backup)
        mapfile -t COMPREPLY < <(compgen -d -W "--from --to --help" -- "$word"); return ;;
    load)
        mapfile -t COMPREPLY < <(compgen -f -W "--to --from --to-user --from-user --to-tls-ca --from-tls-ca --to-tls-cert --to-tls-key --from-tls-cert --from-tls-key --help" -- "$word"); return ;;
    esac
    if [[ $COMP_CWORD == 1 && $word != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$tools help" -- "$word"); return
    fi
    local options="
        -p -s -a -A -l -d -r -u -m -M -c -k -v -h -i -V -P -D -t -R -C -b -B -I -S -F -X -W -Y -Z -e -o
        --port --unix-socket --unix-mask --enable-shutdown --listen --daemon --enable-coredumps
        --user --memory-limit --disable-evictions --conn-limit --lock-memory --verbose --help
        --license --version --pidfile --threads --max-reqs-per-event --disable-cas
        --listen-backlog --protocol --max-item-size --enable-sasl --disable-flush-all --disable-dumping
        --disable-watch --auth-file --enable-ssl --extended --config --cluster-file --data-dir
        --fsync --snapshot-interval --snapshot-growth --snapshot-bytes-per-second
        --snapshot-on-exit --log-bytes-max --recover --on-log-error --metrics-address
        --slow-command-us --log-file --memory-file
    "
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -F _distcached distcached
