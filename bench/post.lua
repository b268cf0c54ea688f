-- wrk's requests: POSTs of one JSON body, in which @ is replaced by the next number from a start given.
-- wrk -s post.lua URL -- START TOKEN BODY
function init(args)
  number = tonumber(args[1])
  body = args[3]
  wrk.method = "POST"
  wrk.headers["Authorization"] = "Bearer " .. args[2]
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  local text = body:gsub("@", number)
  number = number + 1
  return wrk.format(nil, nil, nil, text)
end
