<?php
// An echo server around stream_select(): server.php PORT

$listener = stream_socket_server("tcp://127.0.0.1:{$argv[1]}", $code, $message) or exit("listen: $message\n");
$clients = [];

while (true) {
    $ready = [$listener, ...$clients];
    $write = $except = null;
    stream_select($ready, $write, $except, null);
    foreach ($ready as $stream) {
        if ($stream === $listener) {
            $client = stream_socket_accept($listener);
            $clients[(int) $client] = $client;
            continue;
        }
        $data = fread($stream, 65536);
        if ($data !== false && $data !== '') {
            fwrite($stream, $data);
        }
        if (feof($stream)) {
            unset($clients[(int) $stream]);
            fclose($stream);
        }
    }
}
