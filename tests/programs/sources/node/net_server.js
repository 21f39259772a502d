// An echo server: net_server.js PORT. It answers after the client's end of file too, hence allowHalfOpen.
const net = require('net');

const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', (error) => console.error(error.message));
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), '127.0.0.1');
