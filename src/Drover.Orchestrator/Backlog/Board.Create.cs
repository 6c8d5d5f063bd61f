using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>A task to be added.</summary>
public sealed record NewTask
{
#pragma warning disable CS1591 // see TaskRow
    /// <summary>Null: an id is generated. Otherwise it must be free.</summary>
    public string? Id { get; init; }
    public required string Title { get; init; }
    public string Description { get; init; } = "";
    public string Type { get; init; } = "other";
    public IReadOnlyList<string> Labels { get; init; } = [];
    /// <summary>Higher is sooner.</summary>
    public int Priority { get; init; }
    public string? Epic { get; init; }
    public string? Parent { get; init; }
    public IReadOnlyList<string> BlockedBy { get; init; } = [];
    public string? TestCommand { get; init; }
    public int? MaxAttempts { get; init; }
#pragma warning restore CS1591
}

public static partial class Board
{
    // No vowels, so that no words come out, and no characters that are mistaken for others.
    private const string IdAlphabet = "bcdfghjkmnpqrstvwxz0123456789";

    /// <summary>Most blockers of one task.</summary>
    public const int MaxEdges = 1000;

    [GeneratedRegex(@"^(?<parent>task-[a-z0-9]+(\.[0-9]{1,5})?)\.(?<n>[0-9]{1,5})[ \t]+(?<title>.*)$", RegexOptions.ExplicitCapture | RegexOptions.NonBacktracking)]
    private static partial Regex Shorthand { get; }

    [GeneratedRegex(@"^task-[a-z0-9]+$", RegexOptions.NonBacktracking)]
    internal static partial Regex RootTaskId { get; }

    [GeneratedRegex(@"^epic-[a-z0-9]+$", RegexOptions.NonBacktracking)]
    internal static partial Regex EpicId { get; }

    /// <summary>
    /// Adds a task. A title like <c>task-17.3 Write parser</c> adds sub-task 3 of task-17. A sub-task belongs to its parent's epic.
    /// </summary>
    /// <exception cref="DroverException">
    /// <see cref="ErrorCode.InvalidInput"/> (bad text, self-block, cycle), <see cref="ErrorCode.NotFound"/> (epic, parent, blocker),
    /// <see cref="ErrorCode.Conflict"/> (id in use, parent already being worked on or done).
    /// </exception>
    public static TaskRow AddTask(SqlSession db, string project, NewTask task)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(task);
        string? parent = task.Parent, title = task.Title;
        int? number = null;
        if (task.Id is null && Shorthand.Match(title) is { Success: true } match)
        {
            string named = match.Groups["parent"].Value;
            if (parent is not null && parent != named)
                throw new DroverException(ErrorCode.InvalidInput, $"the title names the parent {named}, --parent names {TextRules.Printable(parent)}: give one of them");
            (parent, title) = (named, match.Groups["title"].Value);
            number = int.Parse(match.Groups["n"].ValueSpan, System.Globalization.CultureInfo.InvariantCulture);
        }
        title = TextRules.Title("the title", title.Trim());
        TextRules.Lines("the description", task.Description);
        if (task.TestCommand is { } command)
            TextRules.Title("the test command", command);
        if (task.MaxAttempts is < 1 or > 100)
            throw new DroverException(ErrorCode.InvalidInput, $"max attempts {task.MaxAttempts} is not between 1 and 100");

        TaskRow? above = parent is null ? null : Parent(db, project, TextRules.Id("the parent", parent));
        string? epic = task.Epic ?? above?.Epic;
        if (above is not null && epic != above.Epic)
            throw new DroverException(ErrorCode.InvalidInput, $"{above.Id} belongs to {above.Epic ?? "no epic"}: a sub-task belongs to its parent's epic; leave --epic out");
        if (epic is not null)
            GetEpic(db, project, TextRules.Id("the epic", epic));

        (string id, int sequence) = above is null ? (RootId(db, project, task.Id), 0) : SubTaskId(db, project, above.Id, number);
        return Insert(db, project, task with { Title = title, Epic = epic, Parent = above?.Id }, id, sequence);
    }

    private static TaskRow Insert(SqlSession db, string project, NewTask task, string id, int sequence)
    {
        long at = Now(db);
        db.Execute("""
            INSERT INTO {d}tasks (project, id, epic, parent, sequence, title, description, type, labels, priority, test_command, max_attempts, created_at, created_seq, updated_at)
            VALUES (@project, @id, @epic, @parent, @sequence, @title, @description, @type, @labels, @priority, @test, @max, @at, @seq, @at2)
            """,
            ("@project", project), ("@id", id), ("@epic", task.Epic), ("@parent", task.Parent), ("@sequence", (long)sequence), ("@title", task.Title),
            ("@description", task.Description), ("@type", task.Type), ("@labels", task.Labels.Count == 0 ? null : string.Join('\n', task.Labels)),
            ("@priority", (long)task.Priority), ("@test", task.TestCommand), ("@max", task.MaxAttempts is { } max ? (long)max : null),
            ("@at", at), ("@seq", NextSeq(db, project, task: true)), ("@at2", at));
        Event(db, project, at, "task.created", id, task.Epic, null, ("title", task.Title), ("parent", task.Parent), ("priority", task.Priority));
        if (task.BlockedBy.Count > 0)
            Block(db, project, id, task.BlockedBy);
        return Get(db, project, id);
    }

    /// <summary>Adds blockers to a task. A blocker that is already completed is kept and does not block. Blockers it has already are skipped.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/>, <see cref="ErrorCode.InvalidInput"/> (itself, a cycle, which is named), <see cref="ErrorCode.Conflict"/> (the task is being worked on or done).</exception>
    public static void Block(SqlSession db, string project, string task, IReadOnlyCollection<string> blockers) => Block(db, project, task, blockers, checkCycles: true);

    /// <summary>As above; many edges may be added before one check of all of them.</summary>
    internal static void Block(SqlSession db, string project, string task, IReadOnlyCollection<string> blockers, bool checkCycles)
    {
        ArgumentNullException.ThrowIfNull(blockers);
        TaskRow row = Get(db, project, task);
        if (blockers.Count > 0 && row.Status is not (StoredStatus.Open or StoredStatus.Paused or StoredStatus.Failed))
            throw new DroverException(ErrorCode.Conflict, $"{task} is {row.Status.Word()}: it cannot get a blocker any more");
        if (blockers.Count > MaxEdges)
            throw new DroverException(ErrorCode.InvalidInput, $"{task} has {blockers.Count} blockers: {MaxEdges} are allowed");
        long at = Now(db);
        foreach (string blocker in blockers)
        {
            TextRules.Id("the blocker", blocker);
            if (blocker == task)
                throw new DroverException(ErrorCode.InvalidInput, $"{task} cannot be blocked by itself: leave it out of --blocked-by");
            Get(db, project, blocker);
            int added = db.Execute("INSERT INTO {d}task_dependencies (project, task, blocked_by) VALUES (@project, @task, @blocker) ON CONFLICT (project, task, blocked_by) DO NOTHING",
                ("@project", project), ("@task", task), ("@blocker", blocker));
            if (added > 0)
                Event(db, project, at, "task.blocked", task, row.Epic, null, ("by", blocker));
        }
        if (checkCycles)
            RefuseCycle(db, project, [task]);
    }

    /// <summary>Adds an epic.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/>, or <see cref="ErrorCode.Conflict"/> when the given id is in use.</exception>
    public static EpicRow AddEpic(SqlSession db, string project, string title, string description = "", string? id = null)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(title);
        title = TextRules.Title("the title", title.Trim());
        TextRules.Lines("the description", description);
        const string Taken = "SELECT COUNT(*) FROM {d}epics WHERE project = @project AND id = @id";
        if (id is not null && db.Number(Taken, ("@project", project), ("@id", id)) > 0)
            throw new DroverException(ErrorCode.Conflict, $"the epic {id} exists already: choose another id");
        id ??= NewId(db, project, "epic", Taken);
        long at = Now(db);
        db.Execute("INSERT INTO {d}epics (project, id, title, description, created_at, created_seq) VALUES (@project, @id, @title, @description, @at, @seq)",
            ("@project", project), ("@id", id), ("@title", title), ("@description", description), ("@at", at), ("@seq", NextSeq(db, project, task: true)));
        Event(db, project, at, "epic.created", null, id, null, ("title", title));
        return new EpicRow(id, title, description, at);
    }

    /// <summary>All epics, oldest first.</summary>
    public static IReadOnlyList<EpicRow> Epics(SqlSession db, string project)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Query("SELECT id, title, description, created_at FROM {d}epics WHERE project = @project ORDER BY created_seq",
            r => new EpicRow(r.GetString(0), r.GetString(1), r.GetString(2), r.GetInt64(3)), ("@project", project));
    }

    /// <summary>An epic.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.NotFound"/>, with the nearest id there is.</exception>
    public static EpicRow GetEpic(SqlSession db, string project, string epic)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT id, title, description, created_at FROM {d}epics WHERE project = @project AND id = @id",
            r => new EpicRow(r.GetString(0), r.GetString(1), r.GetString(2), r.GetInt64(3)), ("@project", project), ("@id", epic)) ?? throw Unknown(db, project, "epic", epic);
    }

    internal static void RefuseCycle(SqlSession db, string project, IReadOnlyCollection<string> starts)
    {
        List<(string, string?)> tasks = db.Query("SELECT id, parent FROM {d}tasks WHERE project = @project", r => (r.GetString(0), r.TextOrNull(1)), ("@project", project));
        List<(string, string)> edges = db.Query("SELECT task, blocked_by FROM {d}task_dependencies WHERE project = @project",
            r => (r.GetString(0), r.GetString(1)), ("@project", project));
        if (new WaitGraph(tasks, edges).Cycle(starts) is { } cycle)
            throw new DroverException(ErrorCode.InvalidInput, $"these tasks would wait for each other: {string.Join(" -> ", cycle)}; leave one of the edges out");
    }

    private static TaskRow Parent(SqlSession db, string project, string id)
    {
        TaskRow row = Get(db, project, id);
        if (row.Status is not (StoredStatus.Open or StoredStatus.Paused or StoredStatus.Failed))
            throw new DroverException(ErrorCode.Conflict, $"{id} is {row.Status.Word()}: it cannot get a sub-task any more; add a task of its own");
        return row;
    }

    private static string RootId(SqlSession db, string project, string? wanted)
    {
        const string Taken = "SELECT COUNT(*) FROM {d}tasks WHERE project = @project AND id = @id";
        if (wanted is null)
            return NewId(db, project, "task", Taken);
        if (!RootTaskId.IsMatch(TextRules.Id("the id", wanted)))
            throw new DroverException(ErrorCode.InvalidInput, $"'{wanted}' is not a task id: write task- and small letters or digits");
        return db.Number(Taken, ("@project", project), ("@id", wanted)) == 0 ? wanted
            : throw new DroverException(ErrorCode.Conflict, $"the task {wanted} exists already: choose another id");
    }

    private static (string Id, int Sequence) SubTaskId(SqlSession db, string project, string parent, int? wanted)
    {
        if (parent.Count(c => c == '.') >= 2)
            throw new DroverException(ErrorCode.InvalidInput, $"{parent} is a sub-task of a sub-task: it cannot have sub-tasks; add a task of its own");
        int highest = (int)db.Number("SELECT MAX(sequence) FROM {d}tasks WHERE project = @project AND parent = @parent", ("@project", project), ("@parent", parent));
        int number = wanted ?? highest + 1;
        string id = $"{parent}.{number}";
        if (number < 1)
            throw new DroverException(ErrorCode.InvalidInput, $"{id} is not a sub-task id: numbers start at 1");
        return Find(db, project, id) is null ? (id, number)
            : throw new DroverException(ErrorCode.Conflict, $"the task {id} exists already: the next free one is {parent}.{highest + 1}");
    }

    internal static string NewId(SqlSession db, string project, string prefix, string takenSql)
    {
        for (int i = 0; ; i++)
        {
            string id = $"{prefix}-{RandomNumberGenerator.GetString(IdAlphabet, Math.Min(6, 4 + i / 4))}";
            if (db.Number(takenSql, ("@project", project), ("@id", id)) == 0)
                return id;
            if (i == 100)
                throw new DroverException(ErrorCode.Conflict, $"no free {prefix} id was found in {i} tries: give one with --id");
        }
    }
}

/// <summary>Who waits for whom, with the edges that a hierarchy implies; used to refuse cycles and to name them.</summary>
internal sealed class WaitGraph
{
    private readonly Dictionary<string, List<string>> _waits = new(StringComparer.Ordinal);

    public WaitGraph(IReadOnlyCollection<(string Id, string? Parent)> tasks, IEnumerable<(string Task, string BlockedBy)> edges)
    {
        // A parent waits for its sub-tasks, and a sub-task for everything its parent is blocked by. The second kind is modelled
        // by a node "begin of X" that X's blockers and X's parent's begin stand before; it keeps the graph linear in size.
        foreach ((string id, string? parent) in tasks)
        {
            Add(id, Begin(id));
            if (parent is not null)
            {
                Add(parent, id);
                Add(Begin(id), Begin(parent));
            }
        }
        foreach ((string task, string blocker) in edges)
            Add(Begin(task), blocker);
    }

    /// <summary>The tasks of one cycle reachable from the starts, the first repeated at the end; null when there is none.</summary>
    public IReadOnlyList<string>? Cycle(IEnumerable<string> starts)
    {
        var done = new HashSet<string>(StringComparer.Ordinal);
        foreach (string start in starts)
        {
            var path = new List<string>();
            var position = new Dictionary<string, int>(StringComparer.Ordinal);
            var stack = new Stack<(string Node, int Next)>();
            stack.Push((start, 0));
            while (stack.TryPop(out (string Node, int Next) top))
            {
                if (top.Next == 0)
                {
                    if (done.Contains(top.Node))
                        continue;
                    position[top.Node] = path.Count;
                    path.Add(top.Node);
                }
                List<string> next = _waits.GetValueOrDefault(top.Node) ?? [];
                if (top.Next == next.Count)
                {
                    done.Add(top.Node);
                    position.Remove(top.Node);
                    path.RemoveAt(path.Count - 1);
                    continue;
                }
                stack.Push((top.Node, top.Next + 1));
                string child = next[top.Next];
                if (position.TryGetValue(child, out int at))
                    return Name([.. path[at..], child]);
                if (!done.Contains(child))
                    stack.Push((child, 0));
            }
        }
        return null;
    }

    private static string Begin(string task) => ">" + task;

    private static List<string> Name(List<string> nodes)
    {
        var names = new List<string>();
        foreach (string node in nodes)
        {
            string name = node.TrimStart('>');
            if (names.Count == 0 || names[^1] != name)
                names.Add(name);
        }
        if (names.Count == 1 || names[0] != names[^1])
            names.Add(names[0]);
        return names;
    }

    private void Add(string from, string to)
    {
        if (!_waits.TryGetValue(from, out List<string>? list))
            _waits.Add(from, list = []);
        list.Add(to);
    }
}
