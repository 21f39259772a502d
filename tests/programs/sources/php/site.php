<?php
// For `php -S`: POST /sum answers with the SHA-256 of the body, anything else sends the file of $STREAM.

if ($_SERVER['REQUEST_URI'] === '/sum') {
    echo hash('sha256', file_get_contents('php://input'));
} else {
    readfile(getenv('STREAM'));
}
