<?php
// Sends a file and saves what comes back, both around stream_select(): client.php PORT FILE SAVED

$socket = stream_socket_client("tcp://127.0.0.1:{$argv[1]}", $code, $message, 30) or exit("connect: $message\n");
stream_set_blocking($socket, false);
$file = fopen($argv[2], 'rb');
$saved = fopen($argv[3], 'wb');
$waiting = fread($file, 65536);

while (!feof($socket) || $waiting !== '') {
    $read = feof($socket) ? null : [$socket];
    $write = $waiting === '' ? null : [$socket];
    $except = null;
    stream_select($read, $write, $except, null);
    if ($write) {
        $sent = fwrite($socket, $waiting);
        if ($sent === false) {
            exit("write failed\n");
        }
        $waiting = substr($waiting, $sent);
        if ($waiting === '') {
            $waiting = fread($file, 65536);
        }
        if ($waiting === '') {
            stream_socket_shutdown($socket, STREAM_SHUT_WR);
        }
    }
    if ($read) {
        fwrite($saved, fread($socket, 65536));
    }
}
