// POST /sum answers with the SHA-256 of the body, GET /stream sends FILE, anything else its own path:
// http_server.js PORT FILE.
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const [port, file] = process.argv.slice(2);
const server = http.createServer((request, response) => {
  if (request.url === '/sum') {
    const hash = crypto.createHash('sha256');
    request.on('data', (data) => hash.update(data));
    request.on('end', () => response.end(hash.digest('hex')));
  } else if (request.url === '/stream') {
    fs.createReadStream(file).pipe(response);
  } else {
    response.end(request.url);
  }
});
server.listen(Number(port), '127.0.0.1');
