# fish completion of docker-flannel; docker's own completes `docker flannel`
function __docker_flannel_complete
    docker-flannel __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c docker-flannel -f -a '(__docker_flannel_complete | string match -v ":*")'
complete -c docker-flannel -n '__docker_flannel_complete | string match -q ":0"' -F
