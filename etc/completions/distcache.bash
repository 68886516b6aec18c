# Completion of distcache for bash: copy to /usr/share/bash-completion/completions/distcache.
_distcache() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= at
    # --option=value arrives as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    local commands="
        get gets set add replace append prepend cas delete incr decr touch inspect keys owner
        ring ping version stats flush top shell quit exit help
    "
    case $before in
    --password-file | --tls-ca | --tls-cert | --tls-key)
        mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    -r | --ring)
        mapfile -t COMPREPLY < <(compgen -W "weighted consistent spymemcached \
            spymemcached-libmemcached libmemcached-spy twemproxy modula rendezvous jump \
            maglev" -- "$word"); return ;;
    -s | --servers | -p | --prefix | -u | --user | -T | --timeout | --tls-name)
        return ;;
    esac
    for ((at = 1; at < COMP_CWORD; at++)); do
        if [[ " ${commands//$'\n'/ } " == *" ${COMP_WORDS[at]} "* ]]; then
            command=${COMP_WORDS[at]}
            break
        fi
    done
    local options="
        -s -r -p -u -T -h -V --servers --ring --prefix --user --password-file --sasl --timeout
        --tls --tls-ca --tls-name --tls-cert --tls-key --once --help --version
    "
    case $command in
    "") mapfile -t COMPREPLY < <(compgen -W "$commands $options" -- "$word") ;;
    help) mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word") ;;
    stats) mapfile -t COMPREPLY < <(compgen -W "settings items slabs sizes conns latency hotkeys \
        bigkeys $options" -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word") ;;
    esac
}
complete -F _distcache distcache
