# Sends a file and saves what comes back, both around IO.select: client.rb PORT FILE SAVED
require 'socket'

socket = TCPSocket.new('127.0.0.1', ARGV[0].to_i)
file = File.open(ARGV[1], 'rb')
saved = File.open(ARGV[2], 'wb')
waiting = file.read(65_536)
ended = false

until ended && waiting.nil?
  readable, writable = IO.select(ended ? [] : [socket], waiting ? [socket] : [])
  unless writable.empty?
    sent = socket.write_nonblock(waiting, exception: false)
    waiting = waiting.byteslice(sent..) if sent.is_a?(Integer)
    waiting = file.read(65_536) if waiting.empty?
    socket.close_write if waiting.nil?
  end
  next if readable.empty?

  data = socket.read_nonblock(65_536, exception: false)
  ended = data.nil?
  saved.write(data) if data.is_a?(String)
end
socket.close
