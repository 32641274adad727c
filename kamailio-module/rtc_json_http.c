/* rtc_json_http.c: HTTP requests for the REST API, as xhttp gives them to the script. */
#include "core/dprint.h"
#include "core/forward.h"
#include "core/ip_addr.h"
#include "core/parser/parse_fline.h"

#include "rtc_json_mod.h"

int rtcj_http_handle(sip_msg_t *msg)
{
	rtc_json_str_t response = {NULL, 0};
	struct dest_info dst;
	int32_t close = 0;

	if(!rtcj_process_ready() || !IS_HTTP(msg) || msg->first_line.type != SIP_REQUEST)
		return -1;
	/* (xhttp has put a Via behind the first line; the core takes it for a header that it does not know) */
	if(rtc_json_http_request(rtcj_from_str(&msg->first_line.u.request.uri), rtcj_from_text(msg->buf, msg->len), &response,
			   &close)
			!= 1)
		return -1;
	init_dst_from_rcv(&dst, &msg->rcv);
	/* over the connection of the request or not at all */
	dst.send_flags.f |= SND_F_FORCE_CON_REUSE;
	if(close)
		dst.send_flags.f |= SND_F_CON_CLOSE;
	if(msg_send_buffer(&dst, (char *)response.s, (int)response.len, 0) < 0)
		LM_DBG("the client of the API has gone\n");
	return 1;
}
