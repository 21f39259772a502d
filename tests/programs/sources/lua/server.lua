-- An echo server, one client after the other: server.lua PORT
local socket = require("socket")

local listener = assert(socket.bind("127.0.0.1", tonumber(arg[1])))
while true do
  local client = listener:accept()
  client:settimeout(0)
  local problem
  repeat
    socket.select({ client })
    local part, partial
    part, problem, partial = client:receive(8192)
    client:settimeout(nil)
    client:send(part or partial)
    client:settimeout(0)
  until problem == "closed"
  client:close()
end
