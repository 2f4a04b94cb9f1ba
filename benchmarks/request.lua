-- One request, given in the environment, over and over; its path may name one key after the other by its number.
wrk.method = os.getenv("BENCH_METHOD")
wrk.path = os.getenv("BENCH_PATH")
wrk.headers["Authorization"] = os.getenv("BENCH_AUTHORIZATION")
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = file:read("*a")
file:close()
if wrk.body ~= "" then
  wrk.headers["Content-Type"] = os.getenv("BENCH_CONTENT_TYPE")
end
for line in (os.getenv("BENCH_HEADERS") or ""):gmatch("[^\n]+") do
  local name, value = line:match("([^:]+): (.*)")
  wrk.headers[name] = value
end
local keys = tonumber(os.getenv("BENCH_KEYS"))
if keys > 0 then
  local path, number = wrk.path, 0
  request = function()
    number = number % keys + 1
    return wrk.format(nil, string.format(path, number))
  end
end
