# An echo server, a thread for each connection: server.rb PORT
require 'socket'

server = TCPServer.new('127.0.0.1', ARGV[0].to_i)
loop do
  Thread.new(server.accept) do |client|
    IO.copy_stream(client, client)
    client.close
  end
end
