#!/usr/bin/perl
# An echo server around select(): server.pl PORT
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

my $listener = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 20, ReuseAddr => 1,
) or die "listen: $@";
my $select = IO::Select->new($listener);

while (my @ready = $select->can_read) {
    for my $handle (@ready) {
        if ($handle == $listener) {
            $select->add($listener->accept);
        } elsif (sysread $handle, my $data, 65536) {
            for (my $at = 0; $at < length $data;) {
                $at += syswrite($handle, $data, length($data) - $at, $at) // die "write: $!";
            }
        } else {
            $select->remove($handle);
            close $handle;
        }
    }
}
