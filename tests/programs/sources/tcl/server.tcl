# An echo server around fileevent: server.tcl PORT
proc echo {channel} {
    set data [read $channel 65536]
    puts -nonewline $channel $data
    if {[eof $channel]} {
        close $channel
    }
}

proc accept {channel address port} {
    fconfigure $channel -blocking 0 -translation binary -buffering none
    fileevent $channel readable [list echo $channel]
}

socket -server accept -myaddr 127.0.0.1 [lindex $argv 0]
vwait forever
