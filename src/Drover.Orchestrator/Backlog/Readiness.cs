using System.Globalization;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>What of a task decides whether it can run.</summary>
/// <remarks><paramref name="Hold"/>: Why its landing is held (<c>checkout a.txt</c>); null when it is not.</remarks>
public sealed record ReadinessInput(
    string Id, string? Epic, string? Parent, StoredStatus Status, int Priority, long CreatedSeq,
    string? PauseReason = null, long? NotBefore = null, string? Hold = null, string? Phase = null, string? Outcome = null);

/// <summary>What a task's status looks like to people, and why it does not run.</summary>
/// <remarks><paramref name="Shown"/>: The shown status.</remarks>
/// <remarks><paramref name="Runnable"/>: True when a run with the given epic filter would claim it now.</remarks>
/// <remarks><paramref name="Reason"/>: Why it does not run or what it waits for; null when there is nothing to say.</remarks>
/// <remarks><paramref name="WaitsUntil"/>: For a backed-off task: milliseconds since the Unix epoch.</remarks>
/// <remarks><paramref name="RootFailed"/>: For an unreachable task: true when a failure (not a cancellation) is the cause.</remarks>
public readonly record struct TaskReadiness(ShownStatus Shown, bool Runnable, string? Reason, long? WaitsUntil = null, bool RootFailed = false);

/// <summary>
/// The one function that says which tasks can run and why the others cannot. Status, info, the claim and the end of a run
/// all use it, so they cannot disagree. It works on rows in memory, in time linear to tasks and edges.
/// <para>What a task waits for: its blockers; the blockers of its parents (a sub-task is part of a parent that may not begin
/// yet); and its sub-tasks (a parent is the last step of its group). A cancelled sub-task no longer holds its parent; a
/// cancelled blocker makes its dependents unreachable, because somebody must decide about them.</para>
/// </summary>
public sealed class Readiness
{
    private readonly Dictionary<string, ReadinessInput> _tasks = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<string>> _blockers = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<string>> _children = new(StringComparer.Ordinal);
    private readonly Dictionary<string, TaskReadiness> _results = new(StringComparer.Ordinal);
    private readonly long _now;
    private readonly string? _epic;

    private Readiness(IEnumerable<ReadinessInput> tasks, IEnumerable<(string Task, string BlockedBy)> edges, long now, string? epic)
    {
        _now = now;
        _epic = epic;
        foreach (ReadinessInput task in tasks)
        {
            _tasks[task.Id] = task;
            if (task.Parent is { } parent)
                Add(_children, parent, task.Id);
        }
        foreach ((string task, string blocker) in edges)
            Add(_blockers, task, blocker);
        foreach (string id in _tasks.Keys)
            Resolve(id);
    }

    /// <summary>Every task with its result.</summary>
    public IReadOnlyDictionary<string, TaskReadiness> Results => _results;

    /// <summary>The results of the tasks that the epic filter lets through.</summary>
    public IEnumerable<TaskReadiness> InScopeResults => _results.Where(r => InScope(_tasks[r.Key])).Select(r => r.Value);

    /// <summary>The result of one task.</summary>
    public TaskReadiness this[string task] => _results[task];

    /// <summary>Computes all tasks.</summary>
    /// <remarks><paramref name="tasks"/>: Rows; a blocker that is missing counts as finished, so completed rows may be left out.</remarks>
    /// <remarks><paramref name="edges"/>: Task and what it is blocked by.</remarks>
    /// <remarks><paramref name="now"/>: Milliseconds since the Unix epoch.</remarks>
    /// <remarks><paramref name="epic"/>: Only tasks of this epic are runnable; null for all.</remarks>
    public static Readiness Compute(IEnumerable<ReadinessInput> tasks, IEnumerable<(string Task, string BlockedBy)> edges, long now, string? epic = null) =>
        new(tasks, edges, now, epic);

    /// <summary>Reads the rows and computes.</summary>
    /// <remarks><paramref name="unfinishedOnly"/>: True leaves completed tasks out, for claims on a long backlog.</remarks>
    public static Readiness Load(SqlSession db, string project, string? epic = null, bool unfinishedOnly = false)
    {
        ArgumentNullException.ThrowIfNull(db);
        Dictionary<string, string> holds = new(StringComparer.Ordinal);
        // An intended landing of a released task is settled by the lane alone: nobody else may take the task up meanwhile.
        foreach ((string task, string hold) in db.Query("""
            SELECT l.task, l.hold_reason, l.hold_paths, l.state FROM {d}landings l JOIN {d}tasks t ON t.project = l.project AND t.id = l.task
            WHERE l.project = @project AND (l.state = 'held' OR (l.state = 'intended' AND t.status = 'open')) ORDER BY l.attempt
            """, r => (r.GetString(0), r.GetString(3) == LandingState.Intended ? "its landing" : Describe(r.TextOrNull(1), r.TextOrNull(2))), ("@project", project)))
            holds[task] = hold;

        Dictionary<string, string> phases = new(StringComparer.Ordinal);
        foreach ((string task, string phase) in db.Query("""
            SELECT a.task, a.phase FROM {d}tasks t JOIN {d}attempts a ON a.project = t.project AND a.task = t.id AND a.n = t.attempts
            WHERE t.project = @project AND t.status = 'in_progress' AND a.phase IS NOT NULL
            """, r => (r.GetString(0), r.GetString(1)), ("@project", project)))
            phases[task] = phase;

        const string Select = "SELECT id, epic, parent, status, priority, created_seq, pause_reason, not_before, outcome FROM {d}tasks WHERE project = @project";
        List<ReadinessInput> tasks = db.Query(unfinishedOnly ? Select + " AND status <> 'completed'" : Select,
            r => new ReadinessInput(r.GetString(0), r.TextOrNull(1), r.TextOrNull(2), TaskStates.Parse(r.GetString(3)), (int)r.GetInt64(4), r.GetInt64(5),
                r.TextOrNull(6), r.NumberOrNull(7), holds.GetValueOrDefault(r.GetString(0)), phases.GetValueOrDefault(r.GetString(0)), r.TextOrNull(8)),
            ("@project", project));
        List<(string, string)> edges = db.Query("SELECT task, blocked_by FROM {d}task_dependencies WHERE project = @project ORDER BY task, blocked_by",
            r => (r.GetString(0), r.GetString(1)), ("@project", project));
        return Compute(tasks, edges, Board.Now(db), epic);
    }

    /// <summary>The runnable tasks in the order in which they are claimed: priority (higher first), then age.</summary>
    public IEnumerable<string> Runnable() => _results.Where(r => r.Value.Runnable).Select(r => _tasks[r.Key])
        .OrderByDescending(t => t.Priority).ThenBy(t => t.CreatedSeq).Select(t => t.Id);

    /// <summary>How the run that works with this readiness's epic filter stands.</summary>
    /// <remarks><paramref name="interrupted"/>: True when a person stopped the run.</remarks>
    /// <remarks><paramref name="stoppedBy"/>: The task whose failure ended the run early; null when there is none.</remarks>
    public RunVerdict Verdict(bool interrupted = false, string? stoppedBy = null)
    {
        var counts = new Dictionary<ShownStatus, int>();
        var why = new List<TaskWaits>();
        long? next = null;
        bool stuck = false, failed = false, canStart = false;
        foreach ((string id, TaskReadiness result) in _results)
        {
            if (!InScope(_tasks[id]))
                continue;
            counts[result.Shown] = counts.GetValueOrDefault(result.Shown) + 1;
            switch (result.Shown)
            {
                case ShownStatus.Completed or ShownStatus.Cancelled:
                    continue;
                case ShownStatus.Failed:
                    failed = true;
                    continue;
                case ShownStatus.Ready:
                    canStart = true;
                    if (result.WaitsUntil is { } until && until < (next ?? long.MaxValue))
                        next = until;
                    break;
                case ShownStatus.Unreachable when result.RootFailed:
                    failed = true;
                    break;
                case ShownStatus.Paused or ShownStatus.Blocked or ShownStatus.Unreachable:
                    stuck = true;
                    break;
                default:
                    break;
            }
            why.Add(new TaskWaits(id, result.Shown, result.Reason ?? (stoppedBy is null ? "not started" : $"not started: the run stopped after {stoppedBy} failed")));
        }

        int active = counts.GetValueOrDefault(ShownStatus.Claimed) + counts.GetValueOrDefault(ShownStatus.InProgress);
        bool startsMore = canStart && stoppedBy is null && !interrupted;
        RunOutcome? outcome = active > 0 || startsMore ? null
            : interrupted && (canStart || stuck) ? RunOutcome.Interrupted
            : stoppedBy is not null ? RunOutcome.FinishedWithFailures
            : stuck ? RunOutcome.Stalled
            : failed ? RunOutcome.FinishedWithFailures
            : RunOutcome.Finished;
        why.Sort((a, b) => string.CompareOrdinal(a.Task, b.Task));
        return new RunVerdict(outcome, counts, why, next);
    }

    private static void Add(Dictionary<string, List<string>> map, string key, string value)
    {
        if (!map.TryGetValue(key, out List<string>? list))
            map.Add(key, list = []);
        list.Add(value);
    }

    private static string Describe(string? reason, string? paths) =>
        paths is null ? reason ?? "" : $"{reason} {string.Join(", ", paths.Split('\n').Take(3))}{(paths.Count(c => c == '\n') > 2 ? ", …" : "")}";

    private bool InScope(ReadinessInput task) => _epic is null || task.Epic == _epic;

    // Depth-first over what each open task waits for, with a stack of its own: chains may be as long as the backlog.
    private void Resolve(string start)
    {
        var stack = new Stack<string>();
        stack.Push(start);
        var entered = new HashSet<string>(StringComparer.Ordinal);
        while (stack.TryPeek(out string? id))
        {
            if (_results.ContainsKey(id))
            {
                stack.Pop();
                continue;
            }
            if (entered.Add(id) && _tasks[id].Status == StoredStatus.Open)
            {
                bool pushed = false;
                foreach ((string other, _) in WaitsFor(id))
                {
                    // A task met again on its own path is a cycle; writes refuse cycles, and this must end all the same.
                    if (_tasks.ContainsKey(other) && !_results.ContainsKey(other) && !entered.Contains(other))
                    {
                        stack.Push(other);
                        pushed = true;
                    }
                }
                if (pushed)
                    continue;
            }
            stack.Pop();
            _results[id] = Judge(_tasks[id]);
        }
    }

    private IEnumerable<(string Task, bool Child)> WaitsFor(string id)
    {
        if (_children.TryGetValue(id, out List<string>? children))
        {
            foreach (string child in children)
                yield return (child, true);
        }
        string? at = id;
        for (int depth = 0; at is not null && depth < 4; depth++)
        {
            if (_blockers.TryGetValue(at, out List<string>? blockers))
            {
                foreach (string blocker in blockers)
                    yield return (blocker, false);
            }
            at = _tasks.TryGetValue(at, out ReadinessInput? task) ? task.Parent : null;
        }
    }

    private TaskReadiness Judge(ReadinessInput task) => task.Status switch
    {
        StoredStatus.Open => JudgeOpen(task),
        StoredStatus.Paused => new(ShownStatus.Paused, false, $"paused: {task.PauseReason}"),
        StoredStatus.InProgress => new(ShownStatus.InProgress, false, task.Hold is { } hold ? $"waiting: {hold}" : task.Phase),
        StoredStatus.Claimed => new(ShownStatus.Claimed, false, null),
        StoredStatus.Completed => new(ShownStatus.Completed, false, task.Outcome == "no-op" ? "no change was needed" : null),
        StoredStatus.Failed => new(ShownStatus.Failed, false, null, RootFailed: true),
        _ => new(ShownStatus.Cancelled, false, null),
    };

    private TaskReadiness JudgeOpen(ReadinessInput task)
    {
        string? blockedBy = null, unreachable = null;
        bool rootFailed = false;
        for (string? parent = task.Parent; parent is not null && _tasks.TryGetValue(parent, out ReadinessInput? row); parent = row.Parent)
        {
            if (row.Status == StoredStatus.Cancelled)
                unreachable ??= $"unreachable because its parent {row.Id} was cancelled";
        }
        foreach ((string other, bool child) in WaitsFor(task.Id))
        {
            if (!_tasks.TryGetValue(other, out ReadinessInput? row) || row.Status == StoredStatus.Completed || (child && row.Status == StoredStatus.Cancelled))
                continue;
            TaskReadiness state = _results.TryGetValue(other, out TaskReadiness known) ? known : new(ShownStatus.Blocked, false, "a cycle");
            switch (state.Shown)
            {
                case ShownStatus.Failed:
                    unreachable = rootFailed ? unreachable : $"unreachable because {other} failed";
                    rootFailed = true;
                    break;
                case ShownStatus.Cancelled:
                    unreachable ??= $"unreachable because {other} was cancelled";
                    break;
                case ShownStatus.Unreachable:
                    unreachable = state.RootFailed && !rootFailed ? state.Reason : unreachable ?? state.Reason;
                    rootFailed |= state.RootFailed;
                    break;
                default:
                    blockedBy ??= $"{(child ? "waits for its sub-task" : "blocked by")} {other} ({Label(row, state)})";
                    break;
            }
        }

        if (unreachable is not null)
            return new(ShownStatus.Unreachable, false, unreachable, RootFailed: rootFailed);
        if (blockedBy is not null)
            return new(ShownStatus.Blocked, false, blockedBy);
        if (task.Hold is { } hold)
            return new(ShownStatus.Blocked, false, $"waiting: {hold}");
        if (task.NotBefore is { } until && until > _now)
            return new(ShownStatus.Ready, false, "waits until " + Stamp(until), until);
        if (!InScope(task))
            return new(ShownStatus.Ready, false, $"other epic: {task.Epic ?? "none"}");
        return new(ShownStatus.Ready, true, null);
    }

    private string Label(ReadinessInput row, TaskReadiness state) =>
        (row.Status == StoredStatus.Paused ? $"paused: {row.PauseReason}" : state.Shown.Word()) + (InScope(row) ? "" : $", other epic {row.Epic ?? "none"}");

    private static string Stamp(long ms) =>
        DateTimeOffset.FromUnixTimeMilliseconds(ms).ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}

/// <summary>How a run ended.</summary>
public enum RunOutcome
{
    /// <summary>Every task is completed or cancelled.</summary>
    Finished,
    /// <summary>Nothing more can run, because of failed tasks.</summary>
    FinishedWithFailures,
    /// <summary>Nothing more can run until a person decides something.</summary>
    Stalled,
    /// <summary>A person stopped it.</summary>
    Interrupted,
}

/// <summary>A task that is not finished, and why.</summary>
public sealed record TaskWaits(string Task, ShownStatus Shown, string Reason);

/// <summary>How a run stands.</summary>
/// <remarks><paramref name="Outcome"/>: Null while something runs or can be started, now or after a backoff.</remarks>
/// <remarks><paramref name="Counts"/>: Tasks in the run's scope by shown status.</remarks>
/// <remarks><paramref name="Waiting"/>: Tasks in scope that are neither completed, cancelled nor failed, with the reason.</remarks>
/// <remarks><paramref name="NextStart"/>: When the earliest backed-off task may start, in milliseconds since the Unix epoch.</remarks>
public sealed record RunVerdict(RunOutcome? Outcome, IReadOnlyDictionary<ShownStatus, int> Counts, IReadOnlyList<TaskWaits> Waiting, long? NextStart);
