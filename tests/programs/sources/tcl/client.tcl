# Sends a file and saves what comes back, with a non-blocking connect: client.tcl PORT FILE SAVED
lassign $argv port path saved
set file [open $path rb]
set out [open $saved wb]
set channel [socket -async 127.0.0.1 $port]
fconfigure $channel -blocking 0 -translation binary

proc receive {channel out} {
    puts -nonewline $out [read $channel]
    if {[eof $channel]} {
        close $out
        fileevent $channel readable {}
        set ::received 1
    }
}

proc sent {channel count args} {
    close $channel write
    set ::sent 1
}

proc connected {channel file} {
    fileevent $channel writable {}
    fcopy $file $channel -command [list sent $channel]
}

fileevent $channel readable [list receive $channel $out]
fileevent $channel writable [list connected $channel $file]
foreach variable {received sent} {
    if {![info exists $variable]} {
        vwait $variable
    }
}
