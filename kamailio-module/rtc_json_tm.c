/* rtc_json_tm.c: SIP by way of tm. Requests of the core, CANCEL, replies of the core, and requests that come in.
 *
 * tm keeps a "current transaction" for each process. Whatever moves it here puts it back, else tm releases or even frees
 * the transaction that the process is working on.
 */
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "core/dprint.h"
#include "core/data_lump.h"
#include "core/dset.h"
#include "core/error.h"
#include "core/ip_addr.h"
#include "core/locking.h"
#include "core/mem/mem.h"
#include "core/mem/shm_mem.h"
#include "core/parser/parse_cseq.h"
#include "core/parser/parse_to.h"
#include "core/parser/parse_uri.h"
#include "core/sr_module.h"
#include "core/ut.h"
#include "modules/sl/sl.h"
#include "modules/tm/tm_load.h"

#include "rtc_json_mod.h"

/* The caller's transaction outlives the ring timeout of the core by this much: the core answers, not tm. Seconds. */
#define HOLD_MARGIN 15
#define REPLY_LOCKS 64

/* Parameter of the tm callbacks, in shared memory: any worker may get the reply. */
typedef struct handle
{
	int done; /* the final reply was given to the core */
	size_t len;
	char text[];
} handle_t;

typedef struct current
{
	struct cell *t;
	int branch;
} current_t;

static struct tm_binds tmb;
static tm_xapi_t tmx;
static sl_api_t slb;
static gen_lock_set_t *reply_locks;

static current_t current_save(void)
{
	current_t c = {tmb.t_gett(), tmb.t_gett_branch()};
	return c;
}

static void current_restore(current_t c)
{
	tmb.t_sett(c.t, c.branch);
}

static int is_transaction(const struct cell *t)
{
	return t != NULL && t != T_UNDEFINED;
}

/* Ends this process's part in the transaction of the message. tm would do it after the script, but 6.1.5 warns then of
 * each transaction that was answered and not forwarded ("orphaned transaction"), which is what a user agent does. */
static void current_release(void)
{
	struct cell *t = tmb.t_gett();

	if(!is_transaction(t))
		return;
	tmb.unref_cell(t);
	tmb.t_sett(T_UNDEFINED, T_BR_UNDEFINED);
}

/* ---- requests of the core ---- */

static void on_reply(struct cell *t, int type, struct tmcb_params *p)
{
	handle_t *h = p->param ? (handle_t *)*p->param : NULL;
	rtc_json_str_t message = {NULL, 0};

	(void)t;
	if(h == NULL)
		return;
	if(type & TMCB_DESTROY) {
		*p->param = NULL;
		shm_free(h);
		return;
	}
	if(type & TMCB_LOCAL_RESPONSE_IN) {
		/* finals come by TMCB_LOCAL_COMPLETED; a reply to our CANCEL comes here too */
		if(p->code >= 200 || h->done || p->rpl == NULL || p->rpl == FAKED_REPLY)
			return;
		if(p->rpl->cseq == NULL || get_cseq(p->rpl)->method_id == METHOD_CANCEL)
			return;
	} else if(!__sync_bool_compare_and_swap(&h->done, 0, 1) && (p->code < 200 || p->code > 299)) {
		return; /* once more only for the 2xx of another fork: tm has sent its ACK, the core ends it */
	}
	if(p->rpl != NULL && p->rpl != FAKED_REPLY)
		message = rtcj_from_text(p->rpl->buf, p->rpl->len);
	rtc_json_sip_reply(rtcj_from_text(h->text, h->len), p->code, message);
}

int32_t rtcj_request(const rtc_json_request_t *req)
{
	str method = rtcj_to_str(req->method), headers = rtcj_to_str(req->headers), body = rtcj_to_str(req->body);
	current_t current = current_save();
	uac_req_t uac;
	dlg_t dlg;
	handle_t *h;
	int ret;

	h = shm_malloc(sizeof(*h) + req->handle.len);
	if(h == NULL) {
		SHM_MEM_ERROR;
		return -1;
	}
	h->done = 0;
	h->len = req->handle.len;
	memcpy(h->text, req->handle.s, req->handle.len);

	/* tm reads the dialog during the call only, so it may stand here */
	memset(&dlg, 0, sizeof(dlg));
	dlg.id.call_id = rtcj_to_str(req->call_id);
	dlg.id.loc_tag = rtcj_to_str(req->from_tag);
	dlg.id.rem_tag = rtcj_to_str(req->to_tag);
	dlg.loc_seq.value = req->cseq;
	dlg.loc_seq.is_set = 1;
	dlg.loc_uri = rtcj_to_str(req->from);
	dlg.rem_uri = rtcj_to_str(req->to);
	dlg.rem_target = rtcj_to_str(req->ruri);
	if(req->next_hop.len > 0)
		dlg.dst_uri = rtcj_to_str(req->next_hop);
	dlg.state = req->to_tag.len > 0 ? DLG_CONFIRMED : DLG_NEW;

	memset(&uac, 0, sizeof(uac));
	set_uac_req(&uac, &method, headers.len > 0 ? &headers : NULL, body.len > 0 ? &body : NULL, &dlg,
			TMCB_LOCAL_RESPONSE_IN | TMCB_LOCAL_COMPLETED | TMCB_DESTROY, on_reply, h);
	ret = tmb.t_uac(&uac);
	current_restore(current);
	if(ret <= 0) {
		/* 0: the script dropped it in event_route[tm:local-request]. tm registers the callbacks last, after everything
		 * that can fail, so TMCB_DESTROY will not come and the handle is still ours */
		shm_free(h);
		return -1;
	}
	return 0;
}

#if VERSIONVAL >= 6000000
#define CALL_ID(t) ((t)->callid_val)
#define CSEQ(t) ((t)->cseq_num)
#else
#define CALL_ID(t) ((t)->callid)
#define CSEQ(t) ((t)->cseq_n)
#endif

/* The INVITE that went out from here, with a reference; NULL if there is none. Of a call between two agents of this Kamailio
 * both ends have the same Call-ID and CSeq, stand in the same row of tm's table, and the one that came in may be found first. */
static struct cell *outgoing_invite(str call_id, str cseq)
{
	struct cell *found = NULL, *t, *outgoing = NULL;
	struct entry *row;

	if(tmb.t_lookup_callid(&found, call_id, cseq) < 0)
		return NULL;
	if(is_local(found))
		return found;
	row = &tmb.get_table()->entries[found->hash_index];
	lock(&row->mutex);
	clist_foreach(row, t, next_c)
	{
		if(is_local(t) && is_invite(t) && CALL_ID(t).len == CALL_ID(found).len && CSEQ(t).len == CSEQ(found).len
				&& memcmp(CALL_ID(t).s, CALL_ID(found).s, CALL_ID(t).len) == 0
				&& strncasecmp(CSEQ(t).s, CSEQ(found).s, CSEQ(t).len) == 0) {
			REF_UNSAFE(t);
			outgoing = t;
			break;
		}
	}
	unlock(&row->mutex);
	tmb.unref_cell(found);
	return outgoing;
}

int32_t rtcj_cancel(rtc_json_str_t call_id, uint32_t cseq)
{
	current_t current = current_save();
	struct cancel_info cancel;
	struct cell *t;
	str number;
	int ret;

	number.s = int2str(cseq, &number.len);
	t = outgoing_invite(rtcj_to_str(call_id), number);
	if(t == NULL) {
		current_restore(current);
		return -1;
	}
	init_cancel_info(&cancel);
	tmb.prepare_to_cancel(t, &cancel.cancel_bitmap, 0);
	if(cancel.cancel_bitmap)
		tmb.cancel_uacs(t, &cancel, 0);
	/* nothing to cancel: it has its final reply, or it is cancelled already */
	ret = cancel.cancel_bitmap || t->uas.status < 200 ? 0 : -1;
	tmb.unref_cell(t);
	current_restore(current);
	return ret;
}

/* ---- replies of the core ---- */

int32_t rtcj_reply(const rtc_json_reply_t *rep)
{
	str reason = rtcj_to_str(rep->reason), headers = rtcj_to_str(rep->headers), body = rtcj_to_str(rep->body);
	str tag = rtcj_to_str(rep->to_tag);
	current_t current = current_save();
	struct cell *t = NULL;
	int lock = rep->index % REPLY_LOCKS, ret = -1;

	if(tmb.t_lookup_ident(&t, rep->index, rep->label) < 0 || t == NULL) {
		current_restore(current);
		return -1;
	}
	if(t->uas.request == NULL || t->uas.status >= 200) {
		tmb.unref_cell(t);
		current_restore(current);
		return -1;
	}
	if(tag.len == 0 && rep->code > 100 && get_to(t->uas.request)->tag_value.len == 0)
		tmb.t_get_reply_totag(t->uas.request, &tag);

	/* tm hangs headers and body into the shared copy of the request while it builds the reply: one process at a time */
	lock_set_get(reply_locks, lock);
	ret = tmb.t_reply_with_body(t, rep->code, &reason, &body, &headers, &tag);
	lock_set_release(reply_locks, lock);
	/* t_reply_with_body has given the reference back */
	current_restore(current);
	return ret < 0 ? -1 : 0;
}

/* ---- an INVITE that goes on to another node ---- */

/* From now on tm waits for what comes from elsewhere: our own branch, which never sent anything, is over. */
static void give_up_blind_branch(struct cell *t)
{
	int branch = t->async_backup.blind_uac;

	if(branch >= 0 && branch < t->nr_of_outgoings && t->uac[branch].request.buffer == NULL)
		t->uac[branch].last_received = 480;
}

int32_t rtcj_pass_on(uint32_t index, uint32_t label, rtc_json_str_t uri)
{
	static str any = {NULL, 0};
	str node = rtcj_to_str(uri), ruri;
	current_t current = current_save();
	struct cell *t = NULL;
	int ret = -1;

	if(tmb.t_lookup_ident(&t, index, label) < 0 || t == NULL) {
		current_restore(current);
		return -1;
	}
	if(t->uas.request != NULL && t->uas.status < 200) {
		ruri = *GET_RURI(t->uas.request);
		clear_branches();
		if(append_branch(NULL, &ruri, &node, NULL, Q_UNSPECIFIED, 0, NULL, NULL, 0, NULL, NULL) > 0) {
			give_up_blind_branch(t);
			/* a reply of ours may hang on the shared copy of the request just now (rtcj_reply) */
			lock_set_get(reply_locks, index % REPLY_LOCKS);
			ret = tmb.t_append_branches(&any);
			lock_set_release(reply_locks, index % REPLY_LOCKS);
		}
		clear_branches();
	}
	tmb.unref_cell(t);
	current_restore(current);
	return ret > 0 ? 0 : -1;
}

/* ---- requests that come in ---- */

/* The server's part of a request that tm could not hold. */
static int refuse_stateless(sip_msg_t *msg)
{
	str reason = str_init("Server Internal Error");

	if(slb.freply == NULL || msg->REQ_METHOD == METHOD_ACK)
		return -1;
	return slb.freply(msg, 500, &reason) < 0 ? -1 : 1;
}

/* An ACK stops the retransmission of our 2xx, so tm must see it first. */
static void handle_ack(sip_msg_t *msg, rtc_json_sip_request_t *req)
{
	struct cell *t;

	tmx.t_check_trans(msg);
	t = tmb.t_gett();
	if(is_transaction(t) && t->uas.status >= 300)
		return; /* belongs to the transaction alone (RFC 3261, 17.1.1.3) */
	rtc_json_sip_request(req);
}

static int relay_to_node(sip_msg_t *msg);

/* A request whose transaction `t` was just made. */
static void handle_request(sip_msg_t *msg, rtc_json_sip_request_t *req, struct cell *t)
{
	unsigned int index = 0, label = 0;
	int hold;

	if(msg->REQ_METHOD == METHOD_INVITE) {
		/* tm gives the caller 408 when the blind branch times out, by default long before the agent has rung enough */
		hold = (rtcj_config.ring_timeout + HOLD_MARGIN) * 1000;
		tmb.set_fr(msg, hold, hold);
		if(tmb.t_addblind() < 0) {
			tmb.t_reply(msg, 500, "Server Internal Error");
			return;
		}
	}
	if(tmb.t_get_trans_ident(msg, &index, &label) < 0) {
		tmb.t_reply(msg, 500, "Server Internal Error");
		return;
	}
	req->index = index;
	req->label = label;
	if(rtc_json_sip_request(req) != 1) {
		/* in this very moment its agent went, maybe to another node */
		if(msg->REQ_METHOD == METHOD_INVITE)
			give_up_blind_branch(t);
		if(relay_to_node(msg) != 1)
			tmb.t_reply(msg, 404, "Not Found");
	} else if(msg->REQ_METHOD != METHOD_INVITE && t->uas.status < 200) {
		LM_BUG("no final reply to %.*s\n", msg->first_line.u.request.method.len, msg->first_line.u.request.method.s);
		tmb.t_reply(msg, 500, "Server Internal Error");
	}
}

/* Nodes that one request may go through: an agent may have moved on while it was on its way. */
#define MAX_NODES_PASSED 3

/* A request for an agent of another node goes there; each node on the way leaves a `mark`. 1: sent, -1: no such node. */
static int relay_to_node(sip_msg_t *msg)
{
	static str mark = str_init("X-RTC-JSON-Node");
	rtc_json_str_t uri;
	str node, line;
	struct lump *anchor;
	struct hdr_field *h;
	int passed = 0;

	if(rtc_json_node_of(rtcj_from_str(&msg->parsed_uri.user), &uri) != 1 || parse_headers(msg, HDR_EOH_F, 0) < 0)
		return -1;
	for(h = msg->headers; h != NULL; h = h->next) {
		if(h->name.len == mark.len && strncasecmp(h->name.s, mark.s, mark.len) == 0 && ++passed == MAX_NODES_PASSED)
			return -1;
	}
	node = rtcj_to_str(uri);
	line.len = mark.len + 5;
	line.s = pkg_malloc(line.len);
	if(line.s == NULL)
		return refuse_stateless(msg);
	memcpy(line.s, mark.s, mark.len);
	memcpy(line.s + mark.len, ": 1\r\n", 5);
	anchor = anchor_lump(msg, msg->unparsed - msg->buf, 0, 0);
	if(anchor == NULL || insert_new_lump_before(anchor, line.s, line.len, 0) == NULL) {
		pkg_free(line.s);
		return refuse_stateless(msg);
	}
	if(set_dst_uri(msg, &node) < 0 || tmb.t_relay(msg, NULL, NULL) < 0)
		return refuse_stateless(msg);
	return 1;
}

int rtcj_sip_handle(sip_msg_t *msg)
{
	rtc_json_sip_request_t req;
	struct cell *t;
	const char *ip;
	int ret;

	/* a browser that speaks SIP over WebSocket is nobody that we know: were it let through to the agents, everybody who can
	 * open a WebSocket could ring them without a password. The script sends it to the far side, which asks for one */
	if(msg->rcv.proto == PROTO_WS || msg->rcv.proto == PROTO_WSS)
		return -1;
	if(parse_sip_msg_uri(msg) < 0)
		return -1;
	if(!rtc_json_sip_wanted(rtcj_from_str(&msg->parsed_uri.user)))
		return relay_to_node(msg);

	memset(&req, 0, sizeof(req));
	req.message = rtcj_from_text(msg->buf, msg->len);
	req.user = rtcj_from_str(&msg->parsed_uri.user);
	ip = ip_addr2a(&msg->rcv.src_ip);
	req.src_ip = rtcj_from_text(ip, strlen(ip));
	req.src_port = msg->rcv.src_port;

	if(msg->REQ_METHOD == METHOD_ACK) {
		handle_ack(msg, &req);
	} else {
		ret = tmb.t_newtran(msg);
		t = tmb.t_gett();
		/* 0: a retransmission, tm has sent the last reply again. E_SCRIPT: the script has made the transaction already */
		if((ret < 0 && ret != E_SCRIPT) || (ret != 0 && !is_transaction(t)))
			return refuse_stateless(msg);
		if(ret != 0)
			handle_request(msg, &req, t);
	}
	current_release();
	return 1;
}

/* From 6.1.5 on tm looks at no reply to a finished transaction unless told to. */
static void check_reply_matching(void)
{
	struct sr_module *tm = find_module_by_name("tm");
	modparam_t type;
	int *matching = find_param_export(tm, "reply_matching", PARAM_INT, &type);

	if(matching != NULL && *matching != 0)
		LM_WARN("tm sends no second ACK when the first is lost: write modparam(\"tm\", \"reply_matching\", 0)\n");
}

int rtcj_tm_init(void)
{
	if(!module_loaded("tm") || load_tm_api(&tmb) < 0 || tm_load_xapi(&tmx) < 0) {
		LM_ERR("the tm module is not loaded: write loadmodule \"tm.so\" before rtc_json.so\n");
		return -1;
	}
	check_reply_matching();
	if(module_loaded("sl") && sl_load_api(&slb) < 0)
		return -1;
	reply_locks = lock_set_alloc(REPLY_LOCKS);
	if(reply_locks == NULL) {
		LM_ERR("cannot allocate the locks for replies\n");
		return -1;
	}
	if(lock_set_init(reply_locks) == NULL) {
		LM_ERR("cannot set up the locks for replies\n");
		lock_set_dealloc(reply_locks);
		reply_locks = NULL;
		return -1;
	}
	return 0;
}

void rtcj_tm_destroy(void)
{
	if(reply_locks == NULL)
		return;
	lock_set_destroy(reply_locks);
	lock_set_dealloc(reply_locks);
	reply_locks = NULL;
}
