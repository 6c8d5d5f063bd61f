using System.Buffers;
using System.Text;
using System.Text.Json;
using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>
/// Every change of the backlog. Functions run inside the caller's transaction and are split by subject: creation, attempts,
/// landings, runs, and a person's commands. A change and its event are written by the same function; each write names the
/// task, the attempt and the status it expects, and says whether it applied, so that nothing is ever resurrected.
/// </summary>
public static partial class Board
{
    /// <summary>Milliseconds since the Unix epoch by the database's clock (SQLite: by the session's time provider).</summary>
    public static long Now(SqlSession db)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Number("SELECT {now}");
    }

    /// <summary>A task's row; null when there is none.</summary>
    public static TaskRow? Find(SqlSession db, string project, string task)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT " + TaskRow.Columns + " FROM {d}tasks WHERE project = @project AND id = @task", TaskRow.Read, ("@project", project), ("@task", task));
    }

    /// <summary>A task's row.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/>, with the nearest id there is.</exception>
    public static TaskRow Get(SqlSession db, string project, string task) => Find(db, project, task) ?? throw Unknown(db, project, "task", task);

    /// <summary>One attempt; null when there is none.</summary>
    public static AttemptRow? FindAttempt(SqlSession db, string project, string task, int attempt)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT " + AttemptRow.Columns + " FROM {d}attempts WHERE project = @project AND task = @task AND n = @n", AttemptRow.Read,
            ("@project", project), ("@task", task), ("@n", (long)attempt));
    }

    /// <summary>The events after a sequence number, in order, at most <c>limit</c> of them.</summary>
    public static IReadOnlyList<EventRow> EventsAfter(SqlSession db, string project, long after, int limit = 1000)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Query("SELECT seq, task, epic, run_id, type, at, data FROM {d}task_events WHERE project = @project AND seq > @after ORDER BY seq LIMIT @limit",
            ReadEvent, ("@project", project), ("@after", after), ("@limit", (long)limit));
    }

    internal static EventRow ReadEvent(System.Data.Common.DbDataReader r) =>
        new(r.GetInt64(0), r.TextOrNull(1), r.TextOrNull(2), r.TextOrNull(3), r.GetString(4), r.GetInt64(5), r.GetString(6));

    // The counter's row is locked until the transaction ends, and a rollback takes the number back: that makes the sequence gap-free.
    private static long NextSeq(SqlSession db, string project, bool task) => db.Number(
        task
            ? "INSERT INTO {d}projects AS p (project, task_seq) VALUES (@project, 1) ON CONFLICT (project) DO UPDATE SET task_seq = p.task_seq + 1 RETURNING task_seq"
            : "INSERT INTO {d}projects AS p (project, event_seq) VALUES (@project, 1) ON CONFLICT (project) DO UPDATE SET event_seq = p.event_seq + 1 RETURNING event_seq",
        ("@project", project));

    private static void Event(SqlSession db, string project, long at, string type, string? task, string? epic, string? run,
        params ReadOnlySpan<(string Name, object? Value)> data)
    {
        db.Execute("INSERT INTO {d}task_events (project, seq, task, epic, run_id, type, at, data) VALUES (@project, @seq, @task, @epic, @run, @type, @at, @data)",
            ("@project", project), ("@seq", NextSeq(db, project, task: false)), ("@task", task), ("@epic", epic), ("@run", run),
            ("@type", type), ("@at", at), ("@data", Json(data)));
    }

    private static string Json(ReadOnlySpan<(string Name, object? Value)> data)
    {
        if (data.IsEmpty)
            return "{}";
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            foreach ((string name, object? value) in data)
            {
                switch (value)
                {
                    case null: break;
                    case bool flag: json.WriteBoolean(name, flag); break;
                    case int number: json.WriteNumber(name, number); break;
                    case long number: json.WriteNumber(name, number); break;
                    default: json.WriteString(name, value.ToString()); break;
                }
            }
            json.WriteEndObject();
        }
        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    /// <summary>The state after a command, checked against the one table.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.Conflict"/> when the table refuses.</exception>
    private static StoredStatus Require(TaskRow task, TaskCommand command) =>
        TaskStates.Next(task.Status, command) ?? throw new DroverException(ErrorCode.Conflict, TaskStates.Refusal(task.Id, task.Status, command));

    /// <summary>The row when a workflow's command on this attempt may apply; null when somebody else decided meanwhile.</summary>
    private static TaskRow? Applicable(SqlSession db, string project, string task, int attempt, TaskCommand command) =>
        Find(db, project, task) is { } row && row.Attempts == attempt && TaskStates.Next(row.Status, command) is not null ? row : null;

    internal static DroverException Unknown(SqlSession db, string project, string kind, string id)
    {
        string sql = kind == "epic" ? "SELECT id FROM {d}epics WHERE project = @project" : "SELECT id FROM {d}tasks WHERE project = @project";
        string? near = TextRules.Nearest(id, db.Query(sql, r => r.GetString(0), ("@project", project)));
        string fix = near is not null ? $"did you mean {near}?" : kind == "epic" ? "`drover epic list` shows them" : "`drover status` shows them";
        return new DroverException(ErrorCode.NotFound, $"there is no {kind} '{TextRules.Printable(id)}': {fix}");
    }
}
