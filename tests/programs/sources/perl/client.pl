#!/usr/bin/perl
# Sends a file from a child process and saves what comes back: client.pl PORT FILE SAVED
use strict;
use warnings;
use IO::Socket::INET;

my ($port, $path, $saved) = @ARGV;
my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "connect: $@";
local $/ = \65536; # what <> reads at once

my $child = fork // die "fork: $!";
if ($child == 0) {
    open my $file, '<:raw', $path or die "$path: $!";
    print {$socket} $_ while <$file>;
    $socket->flush;
    shutdown $socket, 1;
    exit;
}
open my $out, '>:raw', $saved or die "$saved: $!";
print {$out} $_ while <$socket>;
waitpid $child, 0;
die "sender failed" if $?;
