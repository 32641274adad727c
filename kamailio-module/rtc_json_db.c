/* rtc_json_db.c: the HA1 of a user, from Kamailio's subscriber table. Used in register_mode "local" only. */
#include <string.h>

#include "core/dprint.h"
#include "lib/srdb1/db.h"
#include "lib/srdb1/db_cap.h"

#include "rtc_json_mod.h"

str rtcj_db_url = str_init(DEFAULT_DB_URL);
str rtcj_subscriber_table = str_init("subscriber");
str rtcj_user_column = str_init("username");
str rtcj_domain_column = str_init("domain");
str rtcj_ha1_column = str_init("ha1");
int rtcj_use_domain = 0;

static db_func_t dbf;
static db1_con_t *db;

int rtcj_db_init(void)
{
	if(db_bind_mod(&rtcj_db_url, &dbf) < 0) {
		LM_ERR("register_mode \"local\": no database module for db_url: load one, e.g. db_sqlite.so, before"
			   " rtc_json.so\n");
		return -1;
	}
	if(!DB_CAPABILITY(dbf, DB_CAP_QUERY)) {
		LM_ERR("register_mode \"local\": the database module of db_url cannot run queries\n");
		return -1;
	}
	/* once before the workers start, so that a wrong URL stops the server with one message */
	db = dbf.init(&rtcj_db_url);
	if(db == NULL) {
		LM_ERR("register_mode \"local\": cannot connect to db_url\n");
		return -1;
	}
	dbf.close(db);
	db = NULL;
	return 0;
}

int rtcj_db_child_init(void)
{
	if(dbf.init == NULL || db != NULL)
		return 0;
	db = dbf.init(&rtcj_db_url);
	if(db == NULL) {
		LM_ERR("cannot connect to db_url\n");
		return -1;
	}
	return 0;
}

rtc_json_ha1_result_t rtcj_ha1(rtc_json_str_t user, rtc_json_str_t realm, char *out, size_t out_len)
{
	db_key_t keys[2] = {&rtcj_user_column, &rtcj_domain_column}, columns[1] = {&rtcj_ha1_column};
	db_val_t values[2];
	db1_res_t *rows = NULL;
	rtc_json_ha1_result_t result = RTC_JSON_HA1_UNKNOWN;
	const db_val_t *found;
	const char *ha1 = NULL;
	size_t len = 0;

	if(db == NULL || dbf.use_table(db, &rtcj_subscriber_table) < 0)
		return RTC_JSON_HA1_FAILED;
	memset(values, 0, sizeof(values));
	VAL_TYPE(&values[0]) = VAL_TYPE(&values[1]) = DB1_STR;
	VAL_STR(&values[0]) = rtcj_to_str(user);
	VAL_STR(&values[1]) = rtcj_to_str(realm);
	if(dbf.query(db, keys, NULL, values, columns, rtcj_use_domain ? 2 : 1, 1, NULL, &rows) < 0 || rows == NULL) {
		LM_ERR("cannot query the subscriber table\n");
		return RTC_JSON_HA1_FAILED;
	}

	if(RES_ROW_N(rows) > 0) {
		found = ROW_VALUES(RES_ROWS(rows));
		if(!VAL_NULL(found) && VAL_TYPE(found) == DB1_STRING) {
			ha1 = VAL_STRING(found);
			len = strlen(ha1);
		} else if(!VAL_NULL(found) && (VAL_TYPE(found) == DB1_STR || VAL_TYPE(found) == DB1_BLOB)) {
			ha1 = VAL_STR(found).s;
			len = VAL_STR(found).len;
		}
		if(len >= out_len) {
			LM_ERR("the HA1 column of a user holds no HA1\n");
			result = RTC_JSON_HA1_FAILED;
		} else if(len > 0) { /* a user with an empty one cannot log in */
			memcpy(out, ha1, len);
			out[len] = 0;
			result = RTC_JSON_HA1_FOUND;
		}
	}
	dbf.free_result(db, rows);
	return result;
}
