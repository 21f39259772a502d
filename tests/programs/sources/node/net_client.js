// Sends a file and saves what comes back: net_client.js PORT FILE SAVED
const fs = require('fs');
const net = require('net');

const [port, file, saved] = process.argv.slice(2);
const socket = net.connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true });
socket.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
fs.createReadStream(file).pipe(socket); // ends our direction after the last byte
socket.pipe(fs.createWriteStream(saved));
