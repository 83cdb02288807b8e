# Fish completion for ringfence.  As click makes it (_RINGFENCE_COMPLETE=fish_source ringfence), but that what is
# told of a word may have commas in it.
function _ringfence_completion
    set -l response (env _RINGFENCE_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) ringfence)

    for completion in $response
        set -l metadata (string split --max 1 "," -- $completion)

        switch $metadata[1]
            case dir
                __fish_complete_directories $metadata[2]
            case file
                __fish_complete_path $metadata[2]
            case plain
                echo $metadata[2]
        end
    end
end

complete --no-files --command ringfence --arguments "(_ringfence_completion)"
