-- Sends a file and saves what comes back, with LuaSocket's select: client.lua PORT FILE SAVED
local socket = require("socket")

local port, path, saved = arg[1], arg[2], arg[3]
local client = assert(socket.connect("127.0.0.1", tonumber(port)))
client:settimeout(0)
local data = assert(io.open(path, "rb")):read("a")
local out = assert(io.open(saved, "wb"))
local at, ended = 0, false

while not ended or at < #data do
  local readable, writable = socket.select(ended and {} or { client }, at < #data and { client } or {})
  if writable[client] then
    local last, problem, partial = client:send(data, at + 1)
    assert(last or problem == "timeout", problem)
    at = last or partial
    if at == #data then client:shutdown("send") end
  end
  if readable[client] then
    local part, problem, partial = client:receive(8192)
    part = part or partial
    out:write(part)
    ended = problem == "closed"
    assert(ended or problem == nil or problem == "timeout", problem)
  end
end
out:close()
