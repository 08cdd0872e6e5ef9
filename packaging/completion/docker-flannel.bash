# bash completion of docker-flannel, for bash-completion's folder. Docker's own file completes
# `docker flannel`. The last line of the program's answer is :0 if bash may propose files.
_docker_flannel() {
    local cur prev words cword answer
    _get_comp_words_by_ref -n =: cur prev words cword
    mapfile -t answer < <("${words[0]}" __completeNoDesc "${words[@]:1:cword-1}" "$cur" 2>/dev/null)
    [ "${#answer[@]}" -gt 0 ] || return
    [ "${answer[-1]}" != :0 ] || compopt -o default
    unset "answer[-1]"
    [[ $cur != *=* ]] || answer=("${answer[@]#*=}") # bash completes only what is after it
    COMPREPLY=("${answer[@]}")
} && complete -F _docker_flannel docker-flannel
