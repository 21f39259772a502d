<?php
// Downloads and uploads with file_get_contents(): fetch.php URL FILE

[, $url, $file] = $argv;
$options = ['http' => ['method' => 'POST', 'header' => 'Content-Type: text/plain', 'content' => file_get_contents($file)]];
echo 'sent ', file_get_contents("$url/sum", false, stream_context_create($options)), "\n";
$body = file_get_contents("$url/stream");
echo 'got ', hash('sha256', $body), "\n";
