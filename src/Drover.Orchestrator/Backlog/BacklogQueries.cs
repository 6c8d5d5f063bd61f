using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

#pragma warning disable CS1591 // the names are the JSON fields and mean the same

/// <summary><c>status --json</c>.</summary>
public sealed record StatusModel(string? Target, IReadOnlyDictionary<string, int> Counts, IReadOnlyList<StatusTask> Tasks);

/// <summary>A task in <c>status --json</c> and in the answers of <c>add</c>, <c>cancel</c>, <c>retry</c> and <c>resolve</c>. <c>Landed</c> is a commit or null.</summary>
public sealed record StatusTask(string Id, string Title, string Status, string? Reason, int Attempts, string? Epic, IReadOnlyList<string> BlockedBy, string? Landed);

/// <summary>An epic with its tasks, or (id null) the tasks without one.</summary>
public sealed record TreeEpic(string? Id, string Title, IReadOnlyList<TreeNode> Tasks);

/// <summary>A task with its sub-tasks.</summary>
public sealed record TreeNode(string Id, string Title, string Status, string? Reason, IReadOnlyList<string> BlockedBy, IReadOnlyList<TreeNode> Children);

/// <summary>An epic in <c>epic list --json</c>, with its tasks by shown status.</summary>
public sealed record EpicModel(string Id, string Title, string Description, string CreatedAt, IReadOnlyDictionary<string, int> Counts);

/// <summary>Another task, named.</summary>
public sealed record TaskLink(string Id, string Title, string Status);

/// <summary><c>info --json</c>. Times are ISO 8601, UTC.</summary>
public sealed record InfoModel
{
    public required string Id { get; init; }
    public required string Title { get; init; }
    public required string Description { get; init; }
    public required string Type { get; init; }
    public required string Status { get; init; }
    public string? Reason { get; init; }
    public int Priority { get; init; }
    public string? Epic { get; init; }
    public string? EpicTitle { get; init; }
    public string? Parent { get; init; }
    public IReadOnlyList<TaskLink> SubTasks { get; init; } = [];
    public IReadOnlyList<TaskLink> BlockedBy { get; init; } = [];
    public IReadOnlyList<TaskLink> Blocks { get; init; } = [];
    public string? Question { get; init; }
    public string? Answer { get; init; }
    public string? TestCommand { get; init; }
    public int? MaxAttempts { get; init; }
    public string? Outcome { get; init; }
    public string? NoOpReason { get; init; }
    public string? LastError { get; init; }
    public string? Landed { get; init; }
    public string? LandedAt { get; init; }
    public string? WaitsUntil { get; init; }
    public required string CreatedAt { get; init; }
    public required string UpdatedAt { get; init; }
    /// <summary>The newest attempt's worktree, relative to the repository.</summary>
    public string? Worktree { get; init; }
    public string? LogPath { get; init; }
    public IReadOnlyList<AttemptModel> Attempts { get; init; } = [];
    public IReadOnlyList<LandingModel> Landings { get; init; } = [];
    public IReadOnlyList<EventModel> Events { get; init; } = [];
}

/// <summary>An attempt in <c>info --json</c>.</summary>
public sealed record AttemptModel(int Number, string State, string? Phase, string? Outcome, string? Error, string? ErrorClass, string? StartedAt, string? EndedAt,
    string? Worktree, string? Branch, string? Agent, string? SessionId, string? Base, string? Commit, int Turns, long? Tokens, decimal? CostUsd, string? LogPath, string? GateOutput);

/// <summary>A landing candidate in <c>info --json</c>.</summary>
public sealed record LandingModel(int Attempt, string Target, string State, string Commit, string? IntendedCommit, string? Reason, IReadOnlyList<string> Paths);

/// <summary>An event in <c>info --json</c>.</summary>
public sealed record EventModel(long Seq, string At, string Type, JsonElement Data);
#pragma warning restore CS1591

/// <summary>The JSON that commands print.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(StatusModel))]
[JsonSerializable(typeof(StatusTask))]
[JsonSerializable(typeof(IReadOnlyList<TreeEpic>))]
[JsonSerializable(typeof(IReadOnlyList<EpicModel>))]
[JsonSerializable(typeof(EpicModel))]
[JsonSerializable(typeof(InfoModel))]
[JsonSerializable(typeof(ImportResult))]
public sealed partial class BacklogJson : JsonSerializerContext;

/// <summary>What commands show. Reads only; statuses and reasons come from <see cref="Readiness"/>.</summary>
public static class BacklogQueries
{
    /// <summary>All tasks, in the order in which they were added.</summary>
    /// <remarks><paramref name="epic"/>: only this epic's tasks; the reasons then are those of a run with that filter.</remarks>
    public static StatusModel Status(SqlSession db, string project, string? target, string? epic = null)
    {
        ArgumentNullException.ThrowIfNull(db);
        Readiness readiness = Readiness.Load(db, project, epic);
        ILookup<string, string> blockers = Blockers(db, project);
        List<StatusTask> tasks = Light(db, project).Where(t => epic is null || t.Epic == epic)
            .Select(t => t with { Status = readiness[t.Id].Shown.Word(), Reason = readiness[t.Id].Reason, BlockedBy = [.. blockers[t.Id]] }).ToList();
        return new StatusModel(target, CountWords(tasks.Select(t => readiness[t.Id].Shown)), tasks);
    }

    /// <summary>One task as <c>status --json</c> shows it.</summary>
    public static StatusTask Task(SqlSession db, string project, string task)
    {
        TaskRow row = Board.Get(db, project, task);
        TaskReadiness state = Readiness.Load(db, project)[task];
        return new StatusTask(row.Id, row.Title, state.Shown.Word(), state.Reason, row.Attempts, row.Epic, [.. Blockers(db, project)[task]], row.LandedOid);
    }

    /// <summary>The number of tasks by shown status, every status named, zero included.</summary>
    public static IReadOnlyDictionary<string, int> Counts(SqlSession db, string project, string? epic = null)
    {
        Readiness readiness = Readiness.Load(db, project, epic);
        return CountWords(readiness.InScopeResults.Select(r => r.Shown));
    }

    /// <summary>All epics with their counts, oldest first.</summary>
    public static IReadOnlyList<EpicModel> Epics(SqlSession db, string project)
    {
        ArgumentNullException.ThrowIfNull(db);
        Readiness readiness = Readiness.Load(db, project);
        ILookup<string?, ShownStatus> byEpic = Light(db, project).ToLookup(t => t.Epic, t => readiness[t.Id].Shown);
        return [.. Board.Epics(db, project).Select(e => new EpicModel(e.Id, e.Title, e.Description, Time(e.CreatedAt), CountWords(byEpic[e.Id])))];
    }

    /// <summary>Epics, their tasks and sub-tasks, in the order in which they were added; tasks without an epic last, sub-tasks by number.</summary>
    public static IReadOnlyList<TreeEpic> Tree(SqlSession db, string project, string? epic = null)
    {
        ArgumentNullException.ThrowIfNull(db);
        Readiness readiness = Readiness.Load(db, project, epic);
        ILookup<string, string> blockers = Blockers(db, project);
        List<StatusTask> tasks = Light(db, project);
        ILookup<string, string> children = db.Query(
            "SELECT parent, id FROM {d}tasks WHERE project = @project AND parent IS NOT NULL ORDER BY parent, sequence", r => (r.GetString(0), r.GetString(1)), ("@project", project))
            .ToLookup(r => r.Item1, r => r.Item2);
        HashSet<string> subTasks = [.. children.SelectMany(c => c)];
        Dictionary<string, StatusTask> byId = tasks.ToDictionary(t => t.Id);
        ILookup<string?, StatusTask> roots = tasks.Where(t => !subTasks.Contains(t.Id)).ToLookup(t => t.Epic);

        TreeNode Node(StatusTask task) => new(task.Id, task.Title, readiness[task.Id].Shown.Word(), readiness[task.Id].Reason,
            [.. blockers[task.Id]], [.. children[task.Id].Select(c => Node(byId[c]))]);

        var result = new List<TreeEpic>();
        foreach (EpicRow row in Board.Epics(db, project))
        {
            if (epic is null || row.Id == epic)
                result.Add(new TreeEpic(row.Id, row.Title, [.. roots[row.Id].Select(Node)]));
        }
        if (epic is null && roots[null].Any())
            result.Add(new TreeEpic(null, "no epic", [.. roots[null].Select(Node)]));
        return result;
    }

    /// <summary>Everything about one task, with its newest events.</summary>
    /// <exception cref="Workflows.DroverException">NotFound, with the nearest id there is.</exception>
    public static InfoModel Info(SqlSession db, string project, string task, int events = 50)
    {
        TaskRow row = Board.Get(db, project, task);
        Readiness readiness = Readiness.Load(db, project);
        Dictionary<string, StatusTask> all = Light(db, project).ToDictionary(t => t.Id);
        TaskLink Link(string id) => new(id, all[id].Title, readiness[id].Shown.Word());
        List<string> Ids(string sql) => db.Query(sql, r => r.GetString(0), ("@project", project), ("@task", task));
        List<AttemptRow> attempts = db.Query("SELECT " + AttemptRow.Columns + " FROM {d}attempts WHERE project = @project AND task = @task ORDER BY n", AttemptRow.Read,
            ("@project", project), ("@task", task));
        List<LandingRow> landings = db.Query("SELECT " + LandingRow.Columns + " FROM {d}landings WHERE project = @project AND task = @task ORDER BY attempt", LandingRow.Read,
            ("@project", project), ("@task", task));
        List<EventRow> newest = db.Query("""
            SELECT seq, task, epic, run_id, type, at, data FROM {d}task_events WHERE project = @project AND task = @task ORDER BY seq DESC LIMIT @limit
            """, Board.ReadEvent, ("@project", project), ("@task", task), ("@limit", (long)events));
        newest.Reverse();
        return new InfoModel
        {
            Id = row.Id,
            Title = row.Title,
            Description = row.Description,
            Type = row.Type,
            Status = readiness[task].Shown.Word(),
            Reason = readiness[task].Reason,
            Priority = row.Priority,
            Epic = row.Epic,
            EpicTitle = row.Epic is { } epic ? Board.GetEpic(db, project, epic).Title : null,
            Parent = row.Parent,
            SubTasks = [.. Ids("SELECT id FROM {d}tasks WHERE project = @project AND parent = @task ORDER BY sequence").Select(Link)],
            BlockedBy = [.. Ids("SELECT blocked_by FROM {d}task_dependencies WHERE project = @project AND task = @task ORDER BY blocked_by").Select(Link)],
            Blocks = [.. Ids("SELECT task FROM {d}task_dependencies WHERE project = @project AND blocked_by = @task ORDER BY task").Select(Link)],
            Question = row.Status == StoredStatus.Paused ? row.Question : null,
            Answer = row.Answer,
            TestCommand = row.TestCommand,
            MaxAttempts = row.MaxAttempts,
            Outcome = row.Outcome,
            NoOpReason = row.NoOpReason,
            LastError = row.LastError,
            Landed = row.LandedOid,
            LandedAt = TimeOrNull(row.LandedAt),
            WaitsUntil = TimeOrNull(readiness[task].WaitsUntil),
            CreatedAt = Time(row.CreatedAt),
            UpdatedAt = Time(row.UpdatedAt),
            Worktree = attempts.Count == 0 ? null : attempts[^1].Worktree,
            LogPath = attempts.Count == 0 ? null : attempts[^1].LogPath,
            Attempts = [.. attempts.Select(a => new AttemptModel(a.Number, a.State, a.Phase, a.Outcome, a.Error, a.ErrorClass, TimeOrNull(a.StartedAt), TimeOrNull(a.EndedAt),
                a.Worktree, a.Branch, a.Agent, a.SessionId, a.BaseOid, a.WorkOid, a.Turns, a.Tokens, a.CostMicros / 1_000_000m, a.LogPath, a.GateOutput))],
            Landings = [.. landings.Select(l => new LandingModel(l.Attempt, l.Target, l.State, l.WorkOid, l.IntendedOid, l.HoldReason, l.HoldPaths?.Split('\n') ?? []))],
            Events = [.. newest.Select(e => new EventModel(e.Seq, Time(e.At), e.Type, Element(e.Data)))],
        };
    }

    private static List<StatusTask> Light(SqlSession db, string project) => db.Query(
        "SELECT id, title, attempts, epic, landed_oid FROM {d}tasks WHERE project = @project ORDER BY created_seq",
        r => new StatusTask(r.GetString(0), r.GetString(1), "", null, (int)r.GetInt64(2), r.TextOrNull(3), [], r.TextOrNull(4)), ("@project", project));

    private static ILookup<string, string> Blockers(SqlSession db, string project) => db.Query(
        "SELECT task, blocked_by FROM {d}task_dependencies WHERE project = @project ORDER BY task, blocked_by", r => (r.GetString(0), r.GetString(1)), ("@project", project))
        .ToLookup(r => r.Item1, r => r.Item2);

    private static Dictionary<string, int> CountWords(IEnumerable<ShownStatus> statuses)
    {
        var counts = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (ShownStatus status in Enum.GetValues<ShownStatus>())
            counts[status.Word()] = 0;
        foreach (ShownStatus status in statuses)
            counts[status.Word()]++;
        return counts;
    }

    private static JsonElement Element(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return document.RootElement.Clone();
    }

    private static string Time(long ms) => DateTimeOffset.FromUnixTimeMilliseconds(ms).ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);

    private static string? TimeOrNull(long? ms) => ms is { } value ? Time(value) : null;
}
